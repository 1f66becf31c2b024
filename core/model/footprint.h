// SPDX-License-Identifier: Apache-2.0
//
// What a model takes of memory, from its configuration alone: weights, K and V of a prompt, and
// what a prefill holds while it runs. Plain arithmetic without allocator overhead: lower bounds
// that real runs come close to. Immutable; any thread may use it.
#ifndef MASKKV_CORE_MODEL_FOOTPRINT_H_
#define MASKKV_CORE_MODEL_FOOTPRINT_H_

#include <cstdint>

#include "core/model/config.h"
#include "kernels/base/dtype.h"

namespace maskkv::model {

class Footprint {
 public:
  struct Types {
    kernels::DType compute;  // what matrices are packed for
    kernels::DType pairs;    // of an entry's K and V
  };

  // No cache of more positions is spoken of.
  static constexpr std::int64_t kMaxPrompt = ModelConfig::kMaxSequence;

  explicit Footprint(const ModelConfig& config);

  std::int64_t parameters() const { return parameters_; }

  // Matrices packed in `compute` (kInt8: routers in bf16, and 8 bytes of scales a row), norms and
  // biases in f32. The embedding stays in the mapped file and is not counted, but a tied head is
  // packed beside it. A machine without AVX2 packs them in as many bytes as f32.
  std::int64_t PackedBytes(kernels::DType compute) const;

  // K and V of one prompt position in all layers and KV heads, with their scales where dtype is
  // int8.
  std::int64_t KvBytesAPosition(kernels::DType dtype) const;
  // K and V of a whole prompt; of `pairs` kept pairs in every KV head. REQUIRES: not negative, at
  // most kMaxPrompt.
  std::int64_t KvBytes(std::int64_t prompt_tokens, kernels::DType dtype) const;

  // What a run holds at its peak, besides the mapped files: packed weights, one layer's K and V and
  // the hidden states of prompt and masks in f32, the votes, the rotation table, and an entry of
  // min(pairs_a_head, prompt_tokens) pairs in every KV head with their positions.
  // REQUIRES: as above.
  std::int64_t PeakBytes(std::int64_t prompt_tokens, std::int64_t masks, std::int64_t pairs_a_head,
                         Types types) const;

  // The largest prompt up to kMaxPrompt whose peak is at most `bytes`; -1 if not even an empty one
  // fits. pairs_a_head: kMaxPrompt for a whole cache.
  std::int64_t LargestPrompt(std::int64_t bytes, std::int64_t masks, std::int64_t pairs_a_head,
                             Types types) const;

 private:
  std::int64_t layers_, kv_heads_, head_dim_, hidden_;
  std::int64_t parameters_ = 0;
  std::int64_t packed_elements_ = 0;  // of matrices
  std::int64_t packed_rows_ = 0;      // of matrices
  std::int64_t router_elements_ = 0;  // of packed_elements_
  std::int64_t router_rows_ = 0;      // of packed_rows_
  std::int64_t vector_elements_ = 0;  // of norms and biases
};

}  // namespace maskkv::model

#endif  // MASKKV_CORE_MODEL_FOOTPRINT_H_
