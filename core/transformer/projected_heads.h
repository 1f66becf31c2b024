// SPDX-License-Identifier: Apache-2.0
//
// What becomes of a projection before attention reads it, row by row: the bias, each head's norm
// (QK norm), the rotation to its position, and the rounding to bf16 where pairs are bf16. One pass
// over rows for queries, keys and values together. A row depends on itself alone, bit for bit.
#ifndef MASKKV_CORE_TRANSFORMER_PROJECTED_HEADS_H_
#define MASKKV_CORE_TRANSFORMER_PROJECTED_HEADS_H_

#include <cstdint>
#include <span>

#include "core/transformer/rope_tables.h"
#include "kernels/parallel/worker_pool.h"

namespace maskkv::transformer {

// Columns of a projection: `heads` heads side by side.
struct ProjectedHeads {
  float* x = nullptr;  // (rows, heads * head_dim), row stride ld
  std::int64_t ld = 0;
  std::int64_t heads = 0;
  std::span<const float> bias{};  // (heads * head_dim) or empty
  std::span<const float> norm{};  // (head_dim): the norm's weight, or empty
  bool rotated = false;
};

// Where the rows are.
struct HeadRows {
  std::int64_t first = 0;  // of those that positions and rotations describe
  std::int64_t rows = 0;
  const std::int32_t* positions = nullptr;  // not read unless some heads are rotated
  std::span<const RopeRun> rotations{};     // runs in row order, to first + rows at least
};

// In place in every x. norm_eps: of the norms.
void FinishHeads(kernels::WorkerPool& pool, std::span<const ProjectedHeads> parts,
                 const HeadRows& at, std::int64_t head_dim, float norm_eps, bool to_bf16);

}  // namespace maskkv::transformer

#endif  // MASKKV_CORE_TRANSFORMER_PROJECTED_HEADS_H_
