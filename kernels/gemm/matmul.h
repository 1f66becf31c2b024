// SPDX-License-Identifier: Apache-2.0
//
// MatMul: y = x W^T, or y += x W^T, on every worker of a pool. Inputs and outputs are f32; a bf16
// matrix rounds x to the nearest bf16 once (products of bf16 are exact in f32) and accumulates in
// f32; an int8 matrix takes x in int8 and sums in s32 (quantise.h). A row of y depends on its row
// of x and on W alone: bit for bit the same for any number of rows in the call, any place in it and
// any number of threads (packed_matrix.h says how). Denormal bf16 inputs count as zero on machines
// whose bf16 unit flushes them.
//
// Threads that multiply must not run signal handlers on their own stack: on AVX2 machines oneDNN's
// kernels point the stack pointer into their scratch memory, and a handler's frame would overwrite
// what lies below it. Programs block their signals and wait for them in a thread.
#ifndef MASKKV_KERNELS_GEMM_MATMUL_H_
#define MASKKV_KERNELS_GEMM_MATMUL_H_

#include <cstdint>
#include <memory>
#include <span>

#include "kernels/base/dtype.h"
#include "kernels/base/function_ref.h"
#include "kernels/gemm/packed_matrix.h"
#include "kernels/parallel/worker_pool.h"

namespace maskkv::kernels {

// Scratch memory of MatMul and of the vocabulary head. Owned by the caller, grows to the largest
// call seen and then allocates nothing. Not thread safe: one call at a time.
class GemmWorkspace {
 public:
  GemmWorkspace();
  GemmWorkspace(GemmWorkspace&&) noexcept;
  GemmWorkspace& operator=(GemmWorkspace&&) noexcept;
  ~GemmWorkspace();

  // Memory held.
  std::int64_t bytes() const;

  struct Impl;  // kernels/gemm/gemm_scratch.h
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

enum class Store {
  kOverwrite,  // y = x W^T; y is not read
  kAdd,        // y = y + x W^T, one f32 addition of the finished product
};

// x: (rows, weights.in()), row stride ldx >= in. y: (rows, weights.out()), row stride ldy >= out.
// x and y do not overlap. rows == 0 does nothing. NaN and infinity propagate within their row.
// Error of an element against the exact product of the (rounded) inputs: at most
// (in + 2) * 2^-24 * sum_k |x_k| |w_k| to first order; with int8 3 * 2^-24 * |y|, and a value that
// is not finite makes its whole row of y NaN.
void MatMul(WorkerPool& pool, const PackedMatrix& weights, const float* x, std::int64_t rows,
            std::int64_t ldx, float* y, std::int64_t ldy, Store store, GemmWorkspace& workspace);

// Columns [begin, end) of y, as 0 <= begin <= end <= weights.out().
struct Columns {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

// The same bits of these columns of y alone, at the cost of the panels that hold one of them; the
// other columns of these panels are written too (or added to), those of other panels are not.
void MatMulColumns(WorkerPool& pool, const PackedMatrix& weights, Columns columns, const float* x,
                   std::int64_t rows, std::int64_t ldx, float* y, std::int64_t ldy, Store store,
                   GemmWorkspace& workspace);

// Row `row` of x, (in) f32: where it lies, or `scratch` (in f32 of the calling worker) written by
// the call. What feeds a product (a norm, an activation) is computed here, on its way into the
// product's input, and is never stored as f32. Called once a row, on any worker; what it returns is
// read before that worker's next call.
using RowSource = FunctionRef<const float*(std::int64_t row, float* scratch)>;

// One of several products of the same rows.
struct Product {
  const PackedMatrix* weights;
  Columns columns;
  float* y;  // (rows, weights->out()), row stride ldy
  std::int64_t ldy;
  Store store;
};

// Each product as MatMulColumns gives it from the rows of x, bit for bit; rows are converted once
// and all panels are items of one loop (query | key | value). REQUIRES: at least one product; the
// same in() and dtype() in all; no y overlaps what x reads or another y.
void MatMulRows(WorkerPool& pool, std::span<const Product> products, RowSource x, std::int64_t rows,
                GemmWorkspace& workspace);

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_GEMM_MATMUL_H_
