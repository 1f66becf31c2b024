// SPDX-License-Identifier: Apache-2.0
//
// The logits that a decode step would draw from, for a canvas that somebody else fills: one forward
// of [recomputed prompt | canvas] over an entry, then the vocabulary head at the positions asked
// for. Whole rows of logits exist here, so this is for measuring (quality.h), not for serving.
//
// Ownership: borrows the transformer, owns scratch memory that only grows. Not thread safe.
#ifndef MASKKV_CORE_ENGINE_CANVAS_LOGITS_H_
#define MASKKV_CORE_ENGINE_CANVAS_LOGITS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "core/engine/kv.h"
#include "core/transformer/transformer.h"
#include "kernels/base/aligned_buffer.h"

namespace maskkv::engine {

struct CanvasOverEntry {
  const KvView* entry = nullptr;         // of this model's shape, in host memory
  std::span<const std::int32_t> prompt;  // its last tokens that the entry does not serve
  std::int64_t prompt_tokens = 0;        // where the canvas starts
  std::span<const std::int32_t> canvas;  // tokens, the mask id where nothing is committed
  std::span<const std::int64_t> wanted;  // answer positions, in [0, canvas.size())
};

class CanvasLogits {
 public:
  explicit CanvasLogits(transformer::Transformer& transformer) : transformer_(transformer) {}

  // (wanted.size(), vocab_rows) raw logits, f32; valid until the next call.
  // REQUIRES: tokens within the vocabulary, positions below max_positions; where logits are shifted
  // the prompt's last token is among `prompt`.
  std::span<const float> Run(const CanvasOverEntry& input);

 private:
  void Forward(const CanvasOverEntry& input);

  transformer::Transformer& transformer_;
  std::vector<std::int32_t> tokens_, positions_;
  kernels::AlignedBuffer<float> hidden_;  // (rows, hidden)
  kernels::AlignedBuffer<float> kv_;      // (rows, 2 * kv_width)
  kernels::AlignedBuffer<float> chosen_;  // (wanted, hidden)
  kernels::AlignedBuffer<float> normed_;  // (wanted, hidden)
  kernels::AlignedBuffer<float> logits_;  // (wanted, vocab_rows)
  kernels::GemmWorkspace workspace_;
};

}  // namespace maskkv::engine

#endif  // MASKKV_CORE_ENGINE_CANVAS_LOGITS_H_
