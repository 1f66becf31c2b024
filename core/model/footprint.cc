// SPDX-License-Identifier: Apache-2.0
#include "core/model/footprint.h"

#include <algorithm>

#include "core/model/tensor_names.h"
#include "kernels/base/cached_row.h"

namespace maskkv::model {
namespace {

constexpr auto kF32Bytes = static_cast<std::int64_t>(sizeof(float));
// A packed int8 row's scale and offset.
constexpr std::int64_t kScaleBytes = 8;

std::int64_t Bytes(kernels::DType dtype) {
  return static_cast<std::int64_t>(kernels::SizeOf(dtype));
}

}  // namespace

Footprint::Footprint(const ModelConfig& config)
    : layers_(config.layers),
      kv_heads_(config.kv_heads),
      head_dim_(config.head_dim),
      hidden_(config.hidden),
      parameters_(CountParameters(config)) {
  const ModelTensors tensors = TensorsOf(config);
  for (const TensorSpec& spec : ListTensors(tensors)) {
    if (spec.shape.size() == 1) {
      vector_elements_ += spec.shape[0];
    } else {
      packed_rows_ += spec.shape[0];
    }
  }
  for (const BlockTensors& block : tensors.blocks) {
    if (block.experts.empty()) continue;
    router_elements_ += block.router.shape[0] * block.router.shape[1];
    router_rows_ += block.router.shape[0];
  }
  packed_elements_ = parameters_ - vector_elements_;
  // Without the embedding; a tied one is packed once, as the head.
  if (!config.tied_head) {
    packed_elements_ -= config.vocab_rows * config.hidden;
    packed_rows_ -= config.vocab_rows;
  }
}

std::int64_t Footprint::PackedBytes(kernels::DType compute) const {
  const std::int64_t vectors = vector_elements_ * kF32Bytes;
  if (compute != kernels::DType::kInt8) return packed_elements_ * Bytes(compute) + vectors;
  return packed_elements_ - router_elements_ + (packed_rows_ - router_rows_) * kScaleBytes +
         router_elements_ * Bytes(kernels::DType::kBF16) + vectors;
}

std::int64_t Footprint::KvBytesAPosition(kernels::DType dtype) const {
  return layers_ * kv_heads_ * 2 * kernels::CachedRowBytes(dtype, head_dim_);
}

std::int64_t Footprint::KvBytes(std::int64_t prompt_tokens, kernels::DType dtype) const {
  return prompt_tokens * KvBytesAPosition(dtype);
}

std::int64_t Footprint::PeakBytes(std::int64_t prompt_tokens, std::int64_t masks,
                                  std::int64_t pairs_a_head, Types types) const {
  const std::int64_t floats_a_row = hidden_ + 2 * kv_heads_ * head_dim_ + kv_heads_ + head_dim_;
  const std::int64_t pairs = std::min(prompt_tokens, pairs_a_head);
  const std::int64_t positions =
      pairs * layers_ * kv_heads_ * static_cast<std::int64_t>(sizeof(std::int32_t));
  return PackedBytes(types.compute) + (prompt_tokens + masks) * floats_a_row * kF32Bytes +
         KvBytes(pairs, types.pairs) + positions;
}

std::int64_t Footprint::LargestPrompt(std::int64_t bytes, std::int64_t masks,
                                      std::int64_t pairs_a_head, Types types) const {
  const auto fits = [&](std::int64_t prompt_tokens) {
    return PeakBytes(prompt_tokens, masks, pairs_a_head, types) <= bytes;
  };
  if (!fits(0)) return -1;
  std::int64_t low = 0, high = kMaxPrompt + 1;  // low fits, high does not count
  while (high - low > 1) {
    const std::int64_t middle = low + (high - low) / 2;
    (fits(middle) ? low : high) = middle;
  }
  return low;
}

}  // namespace maskkv::model
