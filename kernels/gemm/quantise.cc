// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm/quantise.h"

#include <algorithm>
#include <bit>

#include "kernels/base/multiversion.h"

namespace maskkv::kernels {
namespace {

// In wrapping arithmetic: sums of bytes + kInt8Offset may pass the range that the difference fits.
[[gnu::always_inline]] inline float Difference(std::int32_t sum, std::int32_t offset) {
  return static_cast<float>(static_cast<std::int32_t>(static_cast<std::uint32_t>(sum) -
                                                      static_cast<std::uint32_t>(offset)));
}

// 1.5 * 2^23: added to a small number it leaves the nearest integer in the low bits of the sum.
constexpr float kRounder = 12582912.0F;

// Magnitudes are ordered as their bits are, and compilers vectorise the maximum of integers.
MASKKV_MULTIVERSION std::int32_t LargestMagnitudeBits(const float* v, std::int64_t n) {
  std::int32_t largest = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    largest = std::max(largest, std::bit_cast<std::int32_t>(v[i]) & 0x7fffffff);
  }
  return largest;
}

MASKKV_MULTIVERSION void RoundTo(const float* v, std::int64_t n, float inverse, std::int8_t* q) {
  for (std::int64_t i = 0; i < n; ++i) {
    q[i] = static_cast<std::int8_t>(std::bit_cast<std::int32_t>(v[i] * inverse + kRounder));
  }
}

MASKKV_MULTIVERSION void RoundTo(const float* v, std::int64_t n, float inverse, std::uint8_t* q) {
  for (std::int64_t i = 0; i < n; ++i) {
    q[i] = static_cast<std::uint8_t>(std::bit_cast<std::int32_t>(v[i] * inverse + kRounder) +
                                     kInt8Offset);
  }
}

MASKKV_MULTIVERSION void RoundTo(const float* v, std::int64_t n, float inverse, float* q) {
  for (std::int64_t i = 0; i < n; ++i) q[i] = (v[i] * inverse + kRounder) - kRounder;
}

template <typename T>
float Quantise(const float* v, std::int64_t n, T zero, T* q) {
  const auto largest = std::bit_cast<float>(LargestMagnitudeBits(v, n));
  const bool finite = largest <= std::numeric_limits<float>::max();
  if (!finite || largest < kLeastMagnitude) {
    std::fill_n(q, n, zero);
    return finite ? 0.0F : std::numeric_limits<float>::quiet_NaN();
  }
  constexpr auto kLargest = static_cast<float>(kLargestInt8);
  RoundTo(v, n, kLargest / largest, q);
  return largest / kLargest;
}

}  // namespace

float QuantiseRow(const float* v, std::int64_t n, std::int8_t* q) {
  return Quantise(v, n, std::int8_t{0}, q);
}

float QuantiseRow(const float* v, std::int64_t n, std::uint8_t* q) {
  return Quantise(v, n, static_cast<std::uint8_t>(kInt8Offset), q);
}

float QuantiseRow(const float* v, std::int64_t n, float* q) { return Quantise(v, n, 0.0F, q); }

MASKKV_MULTIVERSION void StoreSums(const std::int32_t* sums, const ColumnScales& columns,
                                   float row_scale, std::int64_t width, float* y) {
  const float* const scales = columns.scales;
  const std::int32_t* const offsets = columns.offsets;
  for (std::int64_t i = 0; i < width; ++i) {
    y[i] = (Difference(sums[i], offsets[i]) * scales[i]) * row_scale;
  }
}

MASKKV_MULTIVERSION void AddSums(const std::int32_t* sums, const ColumnScales& columns,
                                 float row_scale, std::int64_t width, float* y) {
  const float* const scales = columns.scales;
  const std::int32_t* const offsets = columns.offsets;
  for (std::int64_t i = 0; i < width; ++i) {
    y[i] += (Difference(sums[i], offsets[i]) * scales[i]) * row_scale;
  }
}

}  // namespace maskkv::kernels
