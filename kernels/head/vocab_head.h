// SPDX-License-Identifier: Apache-2.0
//
// The vocabulary projection, streamed: logits of chosen rows are produced in tiles (row tile x
// column panel) inside a worker and handed at once to a per-row reducer, so no row of logits ever
// exists as a whole (126,464 logits a row, thousands of rows in a long canvas). A reducer is a
// transform plus a reduction: arg-max with its softmax probability, sampling, later top-p, entropy,
// divergence, grammar masks. Rows of one call may have different reducers.
//
// Order: every (row, panel) reduces into its own state, and a row's states are merged in ascending
// vocabulary order by a fixed sequence of calls. So a row's result depends on its hidden state, the
// weights and its reducer alone, not on other rows or the number of threads.
#ifndef MASKKV_KERNELS_HEAD_VOCAB_HEAD_H_
#define MASKKV_KERNELS_HEAD_VOCAB_HEAD_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/base/aligned_buffer.h"
#include "kernels/gemm/matmul.h"
#include "kernels/gemm/packed_matrix.h"
#include "kernels/parallel/worker_pool.h"

namespace maskkv::kernels {

// One request's transform and reduction. The object itself is immutable during a call and is used
// by several workers at once; everything that changes is in the state, which is trivially copyable
// bytes, aligned to 8.
class LogitReducer {
 public:
  virtual ~LogitReducer() = default;

  // Size of a state: a multiple of 8, constant.
  virtual std::size_t state_bytes() const = 0;

  // Makes `state` the state of an empty range.
  virtual void Init(void* state) const = 0;

  // Adds the logits of vocabulary ids first_id, first_id + 1, ... to `state`, which Init has made
  // or which already holds smaller ids. May edit the logits in place. row_tag: HeadRow::tag.
  virtual void Consume(std::int64_t row_tag, std::int32_t first_id, std::span<float> logits,
                       void* state) const = 0;

  // Adds `later`, a state of larger ids only, to `into`.
  virtual void Merge(const void* later, void* into) const = 0;
};

// One row to project.
struct HeadRow {
  const float* hidden;          // (in), after the final norm
  const LogitReducer* reducer;  // outlives the call
  std::int64_t tag;             // handed to Consume: the canvas position of the row
  void* result;                 // state_bytes(), aligned to 8; receives the merged state
};

// Scratch memory, owned by the caller, grows only. Holds a copy of the hidden rows, one state a
// (row, panel) and one tile a worker. Not thread safe: one call at a time.
struct HeadWorkspace {
  GemmWorkspace gemm;
  AlignedBuffer<std::byte> states;      // a row's panel states are contiguous
  AlignedBuffer<std::int64_t> offsets;  // of a row's first state, in bytes

  std::int64_t bytes() const {
    return gemm.bytes() + states.capacity_bytes() + offsets.capacity_bytes();
  }
};

// Projects every row and writes its merged state to its `result`. No rows: does nothing.
// REQUIRES: head not empty, head.out() fits 32 bits; rows' results do not overlap.
void ProjectVocabulary(WorkerPool& pool, const PackedMatrix& head, std::span<const HeadRow> rows,
                       HeadWorkspace& workspace);

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_HEAD_VOCAB_HEAD_H_
