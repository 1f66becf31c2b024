// SPDX-License-Identifier: Apache-2.0
//
// The feed-forward half of a block: hidden += down(silu(gate(n)) * up(n)) with n the normed rows;
// or, with experts, hidden += sum_e w_e expert_e(n) over the experts that the router chooses for a
// row (kernels/experts/route.h). Rows are gathered by expert, every expert multiplies its own, and
// what they give is added in ascending order of experts, so a row's result depends on that row
// alone, bit for bit, and not on the others or on the number of threads.
//
// Ownership: borrows the pool, owns scratch memory that only grows. Not thread safe.
#ifndef MASKKV_CORE_TRANSFORMER_FEED_FORWARD_H_
#define MASKKV_CORE_TRANSFORMER_FEED_FORWARD_H_

#include <cstdint>
#include <vector>

#include "core/model/config.h"
#include "core/transformer/op_seconds.h"
#include "core/transformer/weights.h"
#include "kernels/base/aligned_buffer.h"
#include "kernels/gemm/matmul.h"
#include "kernels/parallel/worker_pool.h"

namespace maskkv::transformer {

class FeedForward {
 public:
  FeedForward(const model::ModelConfig& config, kernels::WorkerPool& pool)
      : config_(config), pool_(pool) {}

  // normed: gives rows of n, (config.hidden) each; it may read hidden, (rows, config.hidden),
  // contiguous, which is added to once all of them have been taken.
  // output: null, or (rows, config.hidden): what the network gives, without hidden. hidden is the
  // same bits either way; it is hidden + output rounded once, but with experts, which are added to
  // each of the two in turn.
  void Run(const LayerWeights& weights, kernels::RowSource normed, std::int64_t rows, float* hidden,
           float* output, kernels::GemmWorkspace& workspace, OpSeconds& seconds);

  // Scratch memory held now.
  std::int64_t workspace_bytes() const;

 private:
  // What a call lends to its steps.
  struct Lent {
    kernels::GemmWorkspace& workspace;
    OpSeconds& seconds;
  };

  // y (rows, config.hidden) = or += ffn(x).
  void RunFfn(const FfnWeights& weights, kernels::RowSource x, std::int64_t rows, float* y,
              kernels::Store store, const Lent& lent);
  void RunExperts(const LayerWeights& weights, float* hidden, float* output, const Lent& lent);
  // Fills chosen_ and weights_, then the rows of each expert.
  void Route(const LayerWeights& weights, const float* normed, std::int64_t rows, const Lent& lent);
  void GroupRows();

  // Constant after construction.
  const model::ModelConfig& config_;
  kernels::WorkerPool& pool_;

  // Scratch, overwritten by every call.
  kernels::AlignedBuffer<float> gate_up_;
  kernels::AlignedBuffer<float> normed_;         // (rows, hidden), with experts
  kernels::AlignedBuffer<float> logits_;         // (rows, experts)
  std::vector<std::int32_t> chosen_;             // (rows, experts_per_token)
  std::vector<float> weights_;                   // (rows, experts_per_token)
  std::vector<std::int64_t> first_;              // (experts + 1): where an expert's rows begin
  std::vector<std::int32_t> rows_of_;            // (rows * experts_per_token), by expert, then row
  std::vector<float> weights_of_;                // the weights of rows_of_
  kernels::AlignedBuffer<float> expert_output_;  // (rows of an expert, hidden)
};

}  // namespace maskkv::transformer

#endif  // MASKKV_CORE_TRANSFORMER_FEED_FORWARD_H_
