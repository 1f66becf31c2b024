// SPDX-License-Identifier: Apache-2.0
//
// RMSNorm over rows: y_i = x_i / sqrt(mean(x^2) + eps) * weight_i (Zhang and Sennrich 2019), in
// f32. Pure, thread safe, allocates nothing. A row's result depends on that row alone and is the
// same on every instruction set: the mean sums kLanes partial sums in a fixed order.
#ifndef MASKKV_KERNELS_NORM_RMS_NORM_H_
#define MASKKV_KERNELS_NORM_RMS_NORM_H_

#include <cstdint>

namespace maskkv::kernels {

// x: (rows, width), row stride ldx >= width. weight: (width).
// y: (rows, width), row stride ldy >= width; may be x (same pointer and stride), otherwise the
// ranges do not overlap. rows == 0 does nothing.
//
// A row of zeros gives zeros when eps > 0. A row with NaN gives NaN. The mean of squares has the
// range of f32: beyond it (|x| above 1e19) finite elements become 0.
//
// Relative error of an element: at most (width / 32 + 9) * 2^-24.
//
// REQUIRES: width >= 1, eps >= 0.
void RmsNorm(const float* x, std::int64_t rows, std::int64_t ldx, std::int64_t width,
             const float* weight, float eps, float* y, std::int64_t ldy);

// The slow twin: one scalar pass in f64, rounded once.
void RmsNormRef(const float* x, std::int64_t rows, std::int64_t ldx, std::int64_t width,
                const float* weight, float eps, float* y, std::int64_t ldy);

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_NORM_RMS_NORM_H_
