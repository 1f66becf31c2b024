// SPDX-License-Identifier: Apache-2.0
#include "services/maskkv/kept_picture.h"

#include <algorithm>
#include <cstdio>
#include <span>

#include "services/maskkv/progress.h"

namespace maskkv::cli {
namespace {

constexpr int kColumns = 64;

// Where a head's kept positions lie: one cell for each 1/kColumns of the prompt, darker with the
// share of its positions that are kept.
std::string PositionMap(std::span<const std::int32_t> positions, std::int64_t prompt_tokens) {
  static constexpr const char* kShades[] = {" ", "░", "▒", "▓", "█"};
  std::vector<std::int64_t> kept(kColumns), all(kColumns);
  for (std::int64_t i = 0; i < prompt_tokens; ++i) {
    ++all[static_cast<std::size_t>(i * kColumns / prompt_tokens)];
  }
  for (const std::int32_t position : positions) {
    ++kept[static_cast<std::size_t>(position * kColumns / prompt_tokens)];
  }
  std::string map;
  for (std::size_t cell = 0; cell < kColumns; ++cell) {
    // Any kept position shows; the darkest shade is a cell kept whole.
    const std::size_t shade =
        kept[cell] == 0
            ? 0
            : static_cast<std::size_t>(std::min<std::int64_t>(4, 1 + kept[cell] * 3 / all[cell]));
    map += kShades[shade];
  }
  return map;
}

}  // namespace

std::int64_t KeptPicture::pairs() const {
  std::int64_t sum = 0;
  for (const std::vector<Head>& layer : heads) {
    for (const Head& head : layer) sum += static_cast<std::int64_t>(head.positions.size());
  }
  return sum;
}

KeptPicture PictureOf(const PrefilledPrompt& prefilled) {
  KeptPicture picture{.prompt_tokens = prefilled.result.prompt_tokens,
                      .masks = prefilled.result.masks,
                      .bytes = prefilled.entry->bytes(),
                      .mass = prefilled.result.kept_mass(),
                      .rope_scale = prefilled.entry->shape().rope_scale,
                      .heads = {}};
  const engine::EntryShape& shape = prefilled.entry->shape();
  for (std::int64_t layer = 0; layer < shape.layers; ++layer) {
    std::vector<KeptPicture::Head>& heads = picture.heads.emplace_back();
    const engine::LayerReport& report = prefilled.result.layers[static_cast<std::size_t>(layer)];
    for (std::int64_t head = 0; head < shape.kv_heads; ++head) {
      const auto kept = prefilled.entry->Positions(layer, head);
      heads.push_back(
          {report.preference[static_cast<std::size_t>(head)], {kept.begin(), kept.end()}});
    }
  }
  return picture;
}

Json PictureJson(const KeptPicture& picture) {
  std::vector<std::vector<std::int64_t>> pairs;
  Json preference = Json::array(), positions = Json::array();
  for (const std::vector<KeptPicture::Head>& layer : picture.heads) {
    std::vector<std::int64_t>& counts = pairs.emplace_back();
    Json preferences = Json::array(), kept = Json::array();
    for (const KeptPicture::Head& head : layer) {
      counts.push_back(static_cast<std::int64_t>(head.positions.size()));
      preferences.push_back(head.preference);
      kept.push_back(head.positions);
    }
    preference.push_back(std::move(preferences));
    positions.push_back(std::move(kept));
  }
  Json report = KeptJson(pairs, picture.mass);
  report["prompt_tokens"] = picture.prompt_tokens;
  report["masks"] = picture.masks;
  report["rope_scale"] = picture.rope_scale;
  report["preference"] = std::move(preference);
  report["positions"] = std::move(positions);
  return report;
}

void PrintPicture(const KeptPicture& picture) {
  std::int64_t all = 0;
  for (const std::vector<KeptPicture::Head>& layer : picture.heads) {
    all += picture.prompt_tokens * static_cast<std::int64_t>(layer.size());
  }
  std::printf(
      "%lld of %lld pairs kept (%.2f %%), %.1f %% of the mask-query score mass, %lld bytes\n",
      static_cast<long long>(picture.pairs()), static_cast<long long>(all),
      all > 0 ? 100.0 * static_cast<double>(picture.pairs()) / static_cast<double>(all) : 0.0,
      100 * picture.mass, static_cast<long long>(picture.bytes));
  if (picture.rope_scale != 1) std::printf("rope_theta times %.10g\n", picture.rope_scale);
  std::printf("layer head  pairs  prefers prompt  kept positions, first to last of the prompt\n");
  for (std::size_t layer = 0; layer < picture.heads.size(); ++layer) {
    for (std::size_t head = 0; head < picture.heads[layer].size(); ++head) {
      const KeptPicture::Head& kept = picture.heads[layer][head];
      std::printf("%5zu %4zu %6zu  %.3f %-8s |%s|\n", layer, head, kept.positions.size(),
                  kept.preference,
                  Bar(static_cast<std::int64_t>(kept.preference * 1000), 1000, 8).c_str(),
                  PositionMap(kept.positions, picture.prompt_tokens).c_str());
    }
  }
}

}  // namespace maskkv::cli
