// SPDX-License-Identifier: Apache-2.0
//
// The bias of a projection, added after the product: one f32 addition an element. Pure.
#ifndef MASKKV_KERNELS_ACTIVATION_BIAS_H_
#define MASKKV_KERNELS_ACTIVATION_BIAS_H_

#include <cstdint>

namespace maskkv::kernels {

// x(row, :) += bias for every row. x: (rows, width), row stride ldx >= width. bias: (width), does
// not overlap x. rows == 0 or width == 0 does nothing.
void AddBias(const float* bias, std::int64_t rows, std::int64_t width, float* x, std::int64_t ldx);

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_ACTIVATION_BIAS_H_
