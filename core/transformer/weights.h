// SPDX-License-Identifier: Apache-2.0
//
// A checkpoint made ready to compute with: every matrix packed once for the GEMM, in memory of the
// process or in a file that all processes map (weights_cache.h), norms widened to f32, the
// embedding table left where the checkpoint is mapped. Immutable after Load, so it may be read from
// any thread; it owns the checkpoint's mapping. Families differ here and in transformer.h only.
#ifndef MASKKV_CORE_TRANSFORMER_WEIGHTS_H_
#define MASKKV_CORE_TRANSFORMER_WEIGHTS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "core/model/checkpoint.h"
#include "core/model/config.h"
#include "core/transformer/weights_cache.h"
#include "kernels/base/aligned_buffer.h"
#include "kernels/base/dtype.h"
#include "kernels/gemm/packed_matrix.h"
#include "kernels/parallel/worker_pool.h"

namespace maskkv::transformer {

// One feed-forward network.
struct FfnWeights {
  kernels::PackedMatrix gate_up;  // gate rows above up rows: (2 * ffn, hidden)
  kernels::PackedMatrix down;     // (hidden, ffn)

  std::int64_t bytes() const;
};

// One block. Matrices compute y = x W^T with W (out, in) as stored.
struct LayerWeights {
  kernels::AlignedBuffer<float> attn_norm;  // (hidden)
  kernels::AlignedBuffer<float> ffn_norm;   // (hidden)
  kernels::PackedMatrix query;              // (heads * head_dim, hidden)
  kernels::PackedMatrix key_value;  // K rows above V rows: (2 * kv_heads * head_dim, hidden)
  kernels::PackedMatrix attn_out;   // (hidden, heads * head_dim)
  FfnWeights ffn;                   // empty with experts
  // With config.qkv_bias, else empty; so are the next with qk_norm.
  kernels::AlignedBuffer<float> query_bias;      // (heads * head_dim)
  kernels::AlignedBuffer<float> key_value_bias;  // K above V: (2 * kv_heads * head_dim)
  kernels::AlignedBuffer<float> query_norm;      // (head_dim)
  kernels::AlignedBuffer<float> key_norm;        // (head_dim)
  // With experts, else empty.
  kernels::PackedMatrix router;     // (experts, hidden)
  std::vector<FfnWeights> experts;  // config.experts

  std::int64_t bytes() const;
};

struct LoadOptions {
  kernels::DType compute = kernels::DType::kF32;  // what matrices are packed for
  std::string cache_folder{};                     // of TakeFromCache; "": no cache
  // The layer that is made ready besides embedding and head; without one all of them. Others must
  // not be run.
  std::optional<std::int64_t> only_layer{};
};

class Weights {
 public:
  // Reads every tensor that the configuration asks for and packs it or maps it packed; with kInt8
  // the router of experts, whose choices are discrete, is packed for bf16.
  // Errors: what Checkpoint::Tensor reports (missing tensor, wrong shape or dtype);
  // INVALID_ARGUMENT for rows longer than kernels::kLongestInt8 with kInt8.
  static absl::StatusOr<Weights> Load(model::Checkpoint checkpoint, const LoadOptions& options,
                                      kernels::WorkerPool& pool);
  static absl::StatusOr<Weights> Load(model::Checkpoint checkpoint, kernels::DType compute,
                                      kernels::WorkerPool& pool) {
    return Load(std::move(checkpoint), LoadOptions{.compute = compute}, pool);
  }

  const model::ModelConfig& config() const { return checkpoint_.config(); }
  const model::Checkpoint& checkpoint() const { return checkpoint_; }
  kernels::DType compute() const { return compute_; }
  // What keys and values are rounded to and stored as.
  kernels::DType kv_dtype() const { return kernels::PairDType(compute_); }
  const LayerWeights& layer(std::int64_t index) const {
    return layers_[static_cast<std::size_t>(index)];
  }
  const float* final_norm() const { return final_norm_.data(); }  // (hidden)
  const kernels::PackedMatrix& head() const { return head_; }     // (vocab_rows, hidden)

  // Writes the embedding of `token` to out (hidden). REQUIRES: 0 <= token < vocab_rows.
  void Embed(std::int32_t token, float* out) const;

  // Bytes of packed matrices and norms, without the mapped checkpoint.
  std::int64_t packed_bytes() const;

  // Where the packed matrices are.
  const WeightsOrigin& origin() const { return origin_; }

 private:
  explicit Weights(model::Checkpoint checkpoint) : checkpoint_(std::move(checkpoint)) {}

  model::Checkpoint checkpoint_;
  WeightsOrigin origin_;
  kernels::DType compute_ = kernels::DType::kF32;
  kernels::DType embedding_dtype_ = kernels::DType::kF32;
  const std::byte* embedding_ = nullptr;  // (vocab_rows, hidden), inside the checkpoint's mapping
  std::vector<LayerWeights> layers_;
  kernels::AlignedBuffer<float> final_norm_;
  kernels::PackedMatrix head_;
};

}  // namespace maskkv::transformer

#endif  // MASKKV_CORE_TRANSFORMER_WEIGHTS_H_
