// SPDX-License-Identifier: Apache-2.0
//
// The slow twin of MatMul: one scalar f64 sum an element over the rounded inputs. It also
// returns the scale of each element's rounding error, from which tests derive their tolerance.
// Pure.
#ifndef MASKKV_KERNELS_GEMM_MATMUL_REF_H_
#define MASKKV_KERNELS_GEMM_MATMUL_REF_H_

#include <cstdint>

#include "kernels/base/dtype.h"

namespace maskkv::kernels {

// y (rows, out) = x (rows, in) w^T, w (out, in), all f32 and contiguous. compute kBF16 rounds x and
// w to the nearest bf16 first. magnitude (rows, out): sum_k |x_k| |w_k| of the rounded inputs, in
// f64.
void MatMulRef(const float* x, std::int64_t rows, std::int64_t in, const float* w, std::int64_t out,
               DType compute, double* y, double* magnitude);

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_GEMM_MATMUL_REF_H_
