// SPDX-License-Identifier: Apache-2.0
//
// SwiGLU (Shazeer 2020), the gate of the feed-forward layer: y = silu(gate) * up,
// silu(z) = z / (1 + exp(-z)), in f32 with the exponential of kernels/base/elementary.h.
// Element-wise: an element's result depends on that element alone, the same bits on every
// instruction set. Pure.
#ifndef MASKKV_KERNELS_ACTIVATION_SWIGLU_H_
#define MASKKV_KERNELS_ACTIVATION_SWIGLU_H_

#include <cstdint>

namespace maskkv::kernels {

// gate, up: (rows, width), row stride ld_in >= width (both: one matrix product writes gate | up
// side by side). y: (rows, width), row stride ldy >= width; may be gate (same pointer and stride),
// otherwise overlaps neither. rows == 0 or width == 0 does nothing. NaN propagates.
// Error: at most 6 units in the last place of y (exponential 2; sum, quotient and product 1/2 each;
// and their propagation), plus 4e-37 |up| where the exponential has left the range of f32.
void SwiGlu(const float* gate, const float* up, std::int64_t rows, std::int64_t ld_in,
            std::int64_t width, float* y, std::int64_t ldy);

// The slow twin: f64, rounded once.
void SwiGluRef(const float* gate, const float* up, std::int64_t rows, std::int64_t ld_in,
               std::int64_t width, float* y, std::int64_t ldy);

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_ACTIVATION_SWIGLU_H_
