// SPDX-License-Identifier: Apache-2.0
#include "core/engine/mask_mixer.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>

#include "core/base/check.h"

namespace maskkv::engine {
namespace {

using decoding::TokenProbability;

double SumOf(std::span<const TokenProbability> tokens) {
  double sum = 0;
  for (const TokenProbability& token : tokens) sum += static_cast<double>(token.probability);
  return sum;
}

// Normed, by ascending token.
std::vector<std::pair<std::int32_t, double>> ByToken(std::span<const TokenProbability> tokens) {
  const double sum = SumOf(tokens);
  std::vector<std::pair<std::int32_t, double>> sorted;
  sorted.reserve(tokens.size());
  for (const TokenProbability& token : tokens) {
    sorted.emplace_back(token.token, static_cast<double>(token.probability) / sum);
  }
  std::sort(sorted.begin(), sorted.end());
  return sorted;
}

// p ln(2 p / (p + q)), 0 where p is.
double Term(double p, double q) { return p > 0 ? p * std::log(2 * p / (p + q)) : 0; }

}  // namespace

double JensenShannon(std::span<const TokenProbability> p, std::span<const TokenProbability> q) {
  const auto a = ByToken(p), b = ByToken(q);
  double sum = 0;
  for (std::size_t i = 0, j = 0; i < a.size() || j < b.size();) {
    const bool left = j == b.size() || (i < a.size() && a[i].first <= b[j].first);
    const bool right = i == a.size() || (j < b.size() && b[j].first <= a[i].first);
    const double x = left ? a[i++].second : 0;
    const double y = right ? b[j++].second : 0;
    sum += Term(x, y) + Term(y, x);
  }
  return std::max(0.0, sum / 2);
}

void MaskMixer::Update(std::span<const std::int64_t> masks,
                       std::vector<std::vector<TokenProbability>> best) {
  MASKKV_CHECK(masks.size() == best.size(), "a prediction for each mask");
  std::map<std::int64_t, Mask> updated;
  for (std::size_t i = 0; i < masks.size(); ++i) {
    Mask& mask = updated[masks[i]];
    mask.best = std::move(best[i]);
    const auto before = masks_.find(masks[i]);
    const bool moved = before != masks_.end() &&
                       JensenShannon(before->second.best, mask.best) > params_.js_threshold;
    if (moved || params_.mix_weight == 0) continue;
    const double scale = params_.mix_weight / SumOf(mask.best);
    mask.mix.push_back({mask_id_, static_cast<float>(1 - params_.mix_weight)});
    for (const TokenProbability& token : mask.best) {
      mask.mix.push_back(
          {token.token, static_cast<float>(scale * static_cast<double>(token.probability))});
    }
  }
  masks_ = std::move(updated);
}

std::span<const transformer::WeightedToken> MaskMixer::MixOf(std::int64_t position) const {
  const auto it = masks_.find(position);
  if (it == masks_.end()) return {};
  return it->second.mix;
}

}  // namespace maskkv::engine
