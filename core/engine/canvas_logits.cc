// SPDX-License-Identifier: Apache-2.0
#include "core/engine/canvas_logits.h"

#include <algorithm>
#include <memory>

#include "kernels/gemm/matmul.h"

namespace maskkv::engine {

void CanvasLogits::Forward(const CanvasOverEntry& input) {
  tokens_.assign(input.prompt.begin(), input.prompt.end());
  tokens_.insert(tokens_.end(), input.canvas.begin(), input.canvas.end());
  const auto rows = static_cast<std::int64_t>(tokens_.size());
  const std::int64_t first = input.prompt_tokens - static_cast<std::int64_t>(input.prompt.size());
  positions_.clear();
  for (std::int64_t i = 0; i < rows; ++i) {
    positions_.push_back(static_cast<std::int32_t>(first + i));
  }
  const std::shared_ptr<const kernels::RopeTable> rope =
      transformer_.Rope(input.entry->shape().rope_scale, first + rows);
  const transformer::RopeRun rotation{rows, rope.get()};
  const std::int64_t width = transformer_.hidden(), kv_width = transformer_.kv_width();
  hidden_.Resize(rows * width);
  kv_.Resize(rows * 2 * kv_width);
  transformer_.Embed(tokens_, hidden_.data());
  for (std::int64_t layer = 0; layer < transformer_.config().layers; ++layer) {
    transformer_.ProjectKeysValues(layer, hidden_.data(), rows, positions_.data(), {&rotation, 1},
                                   kv_.data());
    for (std::int64_t begin = 0; begin < rows; begin += transformer::kRowBlock) {
      const transformer::AttentionSource source{
          .rows = std::min(transformer::kRowBlock, rows - begin),
          .rope = rope.get(),
          .keys = kv_.data(),
          .values = kv_.data() + kv_width,
          .ldkv = 2 * kv_width,
          .own_rows = rows,
          .cached = input.entry->Layer(layer),
          .cached_dtype = input.entry->shape().dtype,
          .log_sum_exp = nullptr};
      transformer_.Advance(layer, hidden_.data() + begin * width, source.rows,
                           positions_.data() + begin, {&source, 1});
    }
  }
}

std::span<const float> CanvasLogits::Run(const CanvasOverEntry& input) {
  Forward(input);
  const model::ModelConfig& config = transformer_.config();
  const std::int64_t width = config.hidden;
  const auto wanted = static_cast<std::int64_t>(input.wanted.size());
  // Where logits are shifted a position is predicted in the row before it.
  const std::int64_t origin =
      static_cast<std::int64_t>(input.prompt.size()) - (config.shifted_logits ? 1 : 0);
  chosen_.Resize(wanted * width);
  normed_.Resize(wanted * width);
  logits_.Resize(wanted * config.vocab_rows);
  float* out = chosen_.data();
  for (const std::int64_t position : input.wanted) {
    out = std::copy_n(hidden_.data() + (origin + position) * width, width, out);
  }
  transformer_.FinalNorm(chosen_.data(), wanted, normed_.data());
  kernels::MatMul(transformer_.pool(), transformer_.weights().head(), normed_.data(), wanted, width,
                  logits_.data(), config.vocab_rows, kernels::Store::kOverwrite, workspace_);
  return logits_.span();
}

}  // namespace maskkv::engine
