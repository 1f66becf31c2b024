// SPDX-License-Identifier: Apache-2.0
//
// Int8 products: y = x W^T from rows of whole numbers. A row v of n values, of x or of W, becomes
// q = round(v * (127 / max|v|)), ties to even, in [-127, 127], and a scale max|v| / 127, so that v
// is q * scale to within half a scale. Rows of W (output channels) are quantised when a matrix is
// packed, rows of x in every call. An output is then
//
//   y = (f32(sum_k qx_k qw_k) * scale of the row of W) * scale of the row of x
//
// where the sum is exact in s32 and the rest is three f32 roundings. So a row's result depends on
// its row of x and on W alone whatever order the sum takes, and it is the same bits on every
// machine.
//
// Special rows: a value that is not finite makes the scale NaN and all integers 0, hence every
// output of that row NaN. A row of zeros, or of nothing but magnitudes below kLeastMagnitude, whose
// scale would be denormal, has scale 0 and integers 0: it counts as zeros.
//
// The machine's unit multiplies unsigned by signed bytes, so rows of x are stored as q + 128, and
// 128 times a column's sum of qw is taken off its sums. Pure functions.
#ifndef MASKKV_KERNELS_GEMM_QUANTISE_H_
#define MASKKV_KERNELS_GEMM_QUANTISE_H_

#include <cstdint>
#include <limits>

namespace maskkv::kernels {

inline constexpr std::int32_t kLargestInt8 = 127;
inline constexpr std::int32_t kInt8Offset = 128;

// Rows of larger values are quantised, others count as zeros.
inline constexpr float kLeastMagnitude =
    static_cast<float>(kLargestInt8) * std::numeric_limits<float>::min();

// The longest rows: sums of so many products fit s32.
inline constexpr std::int64_t kLongestInt8 =
    std::numeric_limits<std::int32_t>::max() / (kLargestInt8 * kLargestInt8);

// The most products of int8 whose sum is exact in f32 in any order, rounded down to a power of two.
inline constexpr std::int64_t kExactInF32 = 1024;
static_assert(kExactInF32 * kLargestInt8 * kLargestInt8 <= 1 << 24);

// Writes the integers of a row (n) and returns its scale. q: as bytes, as bytes + kInt8Offset, or
// as f32 for machines without an exact product of bytes; in the last case v may be q.
float QuantiseRow(const float* v, std::int64_t n, std::int8_t* q);
float QuantiseRow(const float* v, std::int64_t n, std::uint8_t* q);
float QuantiseRow(const float* v, std::int64_t n, float* q);

// What turns a panel's sums into outputs.
struct ColumnScales {
  const float* scales;          // (width), of the rows of W
  const std::int32_t* offsets;  // (width), taken off the sums
};

// y (width) = the outputs of one row of sums (width), or y += them, one f32 addition each.
void StoreSums(const std::int32_t* sums, const ColumnScales& columns, float row_scale,
               std::int64_t width, float* y);
void AddSums(const std::int32_t* sums, const ColumnScales& columns, float row_scale,
             std::int64_t width, float* y);

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_GEMM_QUANTISE_H_
