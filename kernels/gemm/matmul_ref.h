// SPDX-License-Identifier: Apache-2.0
//
// The slow twin of MatMul: one scalar f64 sum an element over the rounded inputs. It also
// returns the scale of each element's rounding error, from which tests derive their tolerance.
// Pure.
#ifndef MASKKV_KERNELS_GEMM_MATMUL_REF_H_
#define MASKKV_KERNELS_GEMM_MATMUL_REF_H_

#include <cstdint>
#include <vector>

#include "kernels/base/dtype.h"

namespace maskkv::kernels {

// A row of values as whole multiples of a scale (quantise.h), one value after the other.
struct Int8RowRef {
  std::vector<std::int64_t> q;
  float scale = 0;
};
Int8RowRef QuantiseRowRef(const float* row, std::int64_t n);

// y (rows, out) = x (rows, in) w^T, w (out, in), all f32 and contiguous. compute kBF16 rounds x and
// w to the nearest bf16 first, kInt8 every row of both to the nearest of its 255 multiples of a
// scale. magnitude (rows, out): sum_k |x_k| |w_k| of the rounded inputs, in
// f64.
void MatMulRef(const float* x, std::int64_t rows, std::int64_t in, const float* w, std::int64_t out,
               DType compute, double* y, double* magnitude);

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_GEMM_MATMUL_REF_H_
