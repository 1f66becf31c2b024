// SPDX-License-Identifier: Apache-2.0
//
// Rows of cached keys and values as int8: a row x (one pair's key or value of one head, after RoPE)
// is kept as n bytes q and one scale s of its own, x is read as q * s. Symmetric, no zero point.
//
//   s = max(max_i |x_i| / 127, 2^-126),    q_i = x_i / s to the nearest integer, ties to even
//
// so that q is within -127 and 127 and, with the roundings of the quotient and of q * s,
//   |q_i * s - x_i| <= (1/2 + 2^-15) s    where no |x_i| is over 2^127 (beyond, q * s may
//   overflow).
// The floor of the scale keeps the bound for rows of zeros and of the smallest numbers.
//
// A row with an element that is infinite or no number gets zeros and a scale that is not finite: it
// is read as NaN throughout, never as numbers.
//
// Pure, thread safe; every instruction set gives the same bits.
#ifndef MASKKV_KERNELS_BASE_CACHED_ROW_H_
#define MASKKV_KERNELS_BASE_CACHED_ROW_H_

#include <cstdint>
#include <limits>

#include "kernels/base/dtype.h"

namespace maskkv::kernels {

// The least scale, 2^-126.
inline constexpr float kLeastScale = std::numeric_limits<float>::min();

// Bytes of a cached row of n elements, its scale included where there is one.
constexpr std::int64_t CachedRowBytes(DType dtype, std::int64_t n) {
  return n * static_cast<std::int64_t>(SizeOf(dtype)) +
         (dtype == DType::kInt8 ? static_cast<std::int64_t>(sizeof(float)) : 0);
}

// Writes q (n) and returns s. n >= 1.
float QuantiseCachedRow(const float* x, std::int64_t n, std::int8_t* q);

// x (n) = q (n) * scale, rounded once.
void DequantiseRow(const std::int8_t* q, float scale, std::int64_t n, float* x);

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_BASE_CACHED_ROW_H_
