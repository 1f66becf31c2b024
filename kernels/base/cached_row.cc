// SPDX-License-Identifier: Apache-2.0
#include "kernels/base/cached_row.h"

#include <algorithm>
#include <bit>

#include "kernels/base/multiversion.h"

namespace maskkv::kernels {

MASKKV_MULTIVERSION float QuantiseCachedRow(const float* x, std::int64_t n, std::int8_t* q) {
  constexpr float kLargest = 127.0F;
  constexpr std::uint32_t kMagnitude = 0x7fffffffU;
  constexpr std::uint32_t kInfinity = 0x7f800000U;
  // Adding it leaves no bits for a fraction: rounds to the nearest, ties to even.
  constexpr float kRounder = 12582912.0F;  // 1.5 * 2^23
  // As integers, so that NaN is above infinity and that above every number.
  std::uint32_t largest = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    largest = std::max(largest, std::bit_cast<std::uint32_t>(x[i]) & kMagnitude);
  }
  if (largest >= kInfinity) {
    std::fill_n(q, n, std::int8_t{0});
    return std::bit_cast<float>(largest);
  }
  const float scale = std::max(std::bit_cast<float>(largest) / kLargest, kLeastScale);
  for (std::int64_t i = 0; i < n; ++i) {
    q[i] = static_cast<std::int8_t>(static_cast<int>(x[i] / scale + kRounder - kRounder));
  }
  return scale;
}

MASKKV_MULTIVERSION void DequantiseRow(const std::int8_t* q, float scale, std::int64_t n,
                                       float* x) {
  for (std::int64_t i = 0; i < n; ++i) x[i] = static_cast<float>(q[i]) * scale;
}

}  // namespace maskkv::kernels
