// SPDX-License-Identifier: Apache-2.0
#include "core/engine/heap_kv.h"

#include <algorithm>
#include <functional>

#include "absl/strings/str_format.h"
#include "core/base/check.h"

namespace maskkv::engine {

absl::Status HeapKvEntry::Begin(const EntryShape& shape, std::int64_t max_pairs) {
  if (begun_) return absl::FailedPreconditionError("entry: begun twice");
  if (shape.layers < 1 || shape.kv_heads < 1 || shape.head_dim < 1 || max_pairs < 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("entry: expected layers, KV heads and head width >= 1 and max_pairs >= 0, "
                        "found %d, %d, %d, "
                        "%d",
                        shape.layers, shape.kv_heads, shape.head_dim, max_pairs));
  }
  begun_ = true;
  shape_ = shape;
  max_pairs_ = max_pairs;
  layers_.reserve(static_cast<std::size_t>(shape.layers));
  return absl::OkStatus();
}

absl::StatusOr<std::span<const HeadExtent>> HeapKvEntry::AllocateLayer(
    std::int64_t layer, std::span<const std::int64_t> pairs_per_head) {
  if (!begun_ || finished_) return absl::FailedPreconditionError("entry: not being written");
  if (layer != static_cast<std::int64_t>(layers_.size()) || layer >= shape_.layers) {
    return absl::InvalidArgumentError(absl::StrFormat("entry: layer: expected %d of %d, found %d",
                                                      layers_.size(), shape_.layers, layer));
  }
  if (static_cast<std::int64_t>(pairs_per_head.size()) != shape_.kv_heads) {
    return absl::InvalidArgumentError(
        absl::StrFormat("entry: layer %d: expected %d KV heads, found %d", layer, shape_.kv_heads,
                        pairs_per_head.size()));
  }
  std::int64_t total = 0;
  for (const std::int64_t pairs : pairs_per_head) {
    if (pairs < 0 || pairs > max_pairs_ - pairs_ - total) {
      return absl::ResourceExhaustedError(
          absl::StrFormat("entry: layer %d: a head with %d pairs does not fit: %d of %d are taken",
                          layer, pairs, pairs_ + total, max_pairs_));
    }
    total += pairs;
  }

  LayerStore& store = layers_.emplace_back();
  const std::int64_t row_bytes =
      shape_.head_dim * static_cast<std::int64_t>(kernels::SizeOf(shape_.dtype));
  store.payload.Resize(2 * total * row_bytes);
  store.positions.resize(static_cast<std::size_t>(total));
  if (shape_.HasScales()) store.scales.resize(static_cast<std::size_t>(2 * total));
  std::byte* payload = store.payload.data();
  std::int32_t* positions = store.positions.data();
  float* scales = shape_.HasScales() ? store.scales.data() : nullptr;
  for (const std::int64_t pairs : pairs_per_head) {
    std::byte* values = payload + pairs * row_bytes;
    float* const value_scales = scales == nullptr ? nullptr : scales + pairs;
    store.extents.push_back({payload, values, positions, pairs, scales, value_scales});
    store.heads.push_back({payload, values, pairs, scales, value_scales});
    if (scales != nullptr) scales += 2 * pairs;
    payload = values + pairs * row_bytes;
    positions += pairs;
  }
  pairs_ += total;
  bytes_ += total * shape_.PairBytes();
  return std::span<const HeadExtent>(store.extents);
}

absl::Status HeapKvEntry::Finish() {
  if (!begun_ || finished_) return absl::FailedPreconditionError("entry: not being written");
  if (static_cast<std::int64_t>(layers_.size()) != shape_.layers) {
    return absl::FailedPreconditionError(
        absl::StrFormat("entry: finished with %d of %d layers", layers_.size(), shape_.layers));
  }
  finished_ = true;
  CheckInvariants();
  return absl::OkStatus();
}

std::span<const kernels::CachedHead> HeapKvEntry::Layer(std::int64_t layer) const {
  MASKKV_CHECK(finished_ && layer >= 0 && layer < shape_.layers, "layer of a finished entry");
  return layers_[static_cast<std::size_t>(layer)].heads;
}

std::span<const std::int32_t> HeapKvEntry::Positions(std::int64_t layer, std::int64_t head) const {
  MASKKV_CHECK(
      finished_ && layer >= 0 && layer < shape_.layers && head >= 0 && head < shape_.kv_heads,
      "head of a finished entry");
  const HeadExtent& extent =
      layers_[static_cast<std::size_t>(layer)].extents[static_cast<std::size_t>(head)];
  return {extent.positions, static_cast<std::size_t>(extent.pairs)};
}

void HeapKvEntry::CheckInvariants() const {
  std::int64_t pairs = 0;
  for (const LayerStore& store : layers_) {
    MASKKV_CHECK(static_cast<std::int64_t>(store.extents.size()) == shape_.kv_heads,
                 "an extent a head");
    for (const HeadExtent& extent : store.extents) {
      pairs += extent.pairs;
      if (!finished_) continue;
      const std::span<const std::int32_t> positions(extent.positions,
                                                    static_cast<std::size_t>(extent.pairs));
      MASKKV_CHECK(std::adjacent_find(positions.begin(), positions.end(), std::greater_equal<>()) ==
                       positions.end(),
                   "positions strictly ascend within a head");
    }
  }
  MASKKV_CHECK(pairs == pairs_ && pairs <= max_pairs_, "pairs are accounted for");
  MASKKV_CHECK(bytes_ == pairs_ * shape_.PairBytes(), "bytes follow from pairs");
  MASKKV_CHECK(!finished_ || static_cast<std::int64_t>(layers_.size()) == shape_.layers,
               "a finished entry has every layer");
}

}  // namespace maskkv::engine
