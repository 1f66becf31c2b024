// SPDX-License-Identifier: Apache-2.0
#include "core/engine/pool_stage.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "core/base/check.h"
#include "core/base/status_macros.h"
#include "core/policy/preference.h"
#include "kernels/compact/gather.h"

namespace maskkv::engine {

PoolStage::PoolStage(const EntryShape& shape, std::int64_t max_pairs)
    : shape_(shape), pool_(shape.kv_heads, max_pairs) {}

std::size_t PoolStage::RowBytes() const {
  return static_cast<std::size_t>(shape_.head_dim) * kernels::SizeOf(shape_.dtype);
}

void PoolStage::Shrink(Head& head, std::span<const std::int32_t> kept) const {
  if (kept.size() == head.rows.size()) return;
  const std::size_t bytes = RowBytes();
  std::size_t from = 0;
  for (std::size_t to = 0; to < kept.size(); ++to, ++from) {
    while (head.rows[from] != kept[to]) ++from;
    if (from == to) continue;
    if (shape_.HasScales()) {
      head.key_scales[to] = head.key_scales[from];
      head.value_scales[to] = head.value_scales[from];
    }
    head.mask_scores[to] = head.mask_scores[from];
    std::memcpy(head.keys.data() + to * bytes, head.keys.data() + from * bytes, bytes);
    std::memcpy(head.values.data() + to * bytes, head.values.data() + from * bytes, bytes);
  }
  head.rows.assign(kept.begin(), kept.end());
  head.mask_scores.resize(kept.size());
  for (std::vector<std::byte>* store : {&head.keys, &head.values}) {
    store->resize(kept.size() * bytes);
    store->shrink_to_fit();
  }
  if (!shape_.HasScales()) return;
  for (std::vector<float>* store : {&head.key_scales, &head.value_scales}) {
    store->resize(kept.size());
    store->shrink_to_fit();
  }
}

absl::Status PoolStage::AddLayer(kernels::WorkerPool& workers, const LayerScores& scores,
                                 std::int64_t prompt_tokens, const float* kv) {
  const std::int64_t layer = std::ssize(layers_);
  const std::int64_t heads = shape_.kv_heads;
  MASKKV_RETURN_IF_ERROR(CheckLayerScores(layer, scores));
  const std::size_t keys = scores.masks.size() / static_cast<std::size_t>(heads);
  Layer staged(static_cast<std::size_t>(heads));
  for (std::size_t h = 0; h < staged.size(); ++h) {
    MASKKV_ASSIGN_OR_RETURN(
        const policy::HeadVote voting,
        policy::PromptPreference(scores.voting.subspan(h * keys, keys), prompt_tokens));
    MASKKV_ASSIGN_OR_RETURN(
        const policy::HeadVote masks,
        policy::PromptPreference(scores.masks.subspan(h * keys, keys), prompt_tokens));
    staged[h].preference = voting.preference;
    staged[h].prompt_mass = masks.prompt_mass;
  }
  MASKKV_RETURN_IF_ERROR(
      pool_.AddLayer(scores.voting, static_cast<std::int64_t>(keys), prompt_tokens));
  // First room, then what is new.
  workers.ParallelFor(layer * heads, [&](std::int64_t unit, int) {
    Head& head =
        layers_[static_cast<std::size_t>(unit / heads)][static_cast<std::size_t>(unit % heads)];
    Shrink(head, pool_.Kept(unit / heads, unit % heads));
  });
  const std::int64_t width = heads * shape_.head_dim;
  workers.ParallelFor(heads, [&](std::int64_t h, int) {
    Head& head = staged[static_cast<std::size_t>(h)];
    head.rows = pool_.Kept(layer, h);
    head.keys.resize(head.rows.size() * RowBytes());
    head.values.resize(head.rows.size() * RowBytes());
    if (shape_.HasScales()) {
      head.key_scales.resize(head.rows.size());
      head.value_scales.resize(head.rows.size());
    }
    const float* from = kv + h * shape_.head_dim;
    kernels::GatherRows(from, 2 * width, shape_.head_dim, head.rows, shape_.dtype, head.keys.data(),
                        head.key_scales.data());
    kernels::GatherRows(from + width, 2 * width, shape_.head_dim, head.rows, shape_.dtype,
                        head.values.data(), head.value_scales.data());
    for (const std::int32_t row : head.rows) {
      head.mask_scores.push_back(
          scores.masks[static_cast<std::size_t>(h) * keys + static_cast<std::size_t>(row)]);
    }
  });
  layers_.push_back(std::move(staged));
  return absl::OkStatus();
}

KeptLayer PoolStage::Kept(std::int64_t layer) const {
  KeptLayer kept;
  for (const Head& head : layers_[static_cast<std::size_t>(layer)]) {
    kept.rows.push_back(head.rows);
    kept.preference.push_back(head.preference);
    kept.kept_mass.push_back(
        std::accumulate(head.mask_scores.begin(), head.mask_scores.end(), 0.0));
    kept.prompt_mass.push_back(head.prompt_mass);
  }
  return kept;
}

absl::Status PoolStage::WriteLayer(std::span<const std::int32_t> positions, KvSink& sink) {
  MASKKV_CHECK(std::ssize(layers_) == shape_.layers && written_ < shape_.layers,
               "layers are written after all were added");
  Layer& layer = layers_[static_cast<std::size_t>(written_)];
  std::vector<std::int64_t> pairs;
  for (const Head& head : layer) pairs.push_back(std::ssize(head.rows));
  MASKKV_ASSIGN_OR_RETURN(const std::span<const HeadExtent> extents,
                          sink.AllocateLayer(written_, pairs));
  for (std::size_t h = 0; h < layer.size(); ++h) {
    const Head& head = layer[h];
    std::ranges::copy(head.keys, extents[h].keys);
    std::ranges::copy(head.values, extents[h].values);
    std::ranges::copy(head.key_scales, extents[h].key_scales);
    std::ranges::copy(head.value_scales, extents[h].value_scales);
    std::ranges::transform(head.rows, extents[h].positions, [&](std::int32_t row) {
      return positions[static_cast<std::size_t>(row)];
    });
  }
  layer = Layer();
  ++written_;
  return absl::OkStatus();
}

std::int64_t PoolStage::bytes() const {
  std::size_t bytes = 0;
  for (const Layer& layer : layers_) {
    for (const Head& head : layer) {
      bytes += head.keys.capacity() + head.values.capacity() +
               (head.key_scales.capacity() + head.value_scales.capacity()) * sizeof(float);
    }
  }
  return static_cast<std::int64_t>(bytes);
}

}  // namespace maskkv::engine
