// SPDX-License-Identifier: Apache-2.0
//
// exp and log in f32 that the compiler can vectorise and that give the same bits on every machine:
// the C library's differ between versions and instruction sets, and a sampled token or a softmax
// must not. Only additions, multiplications and bit operations, without fused multiply-add (the
// build has -ffp-contract=off). Polynomials of the Cephes library (S. Moshier, public domain).
// Pure; force-inlined so that they take the instruction set of the MASKKV_MULTIVERSION function
// that calls them.
#ifndef MASKKV_KERNELS_BASE_ELEMENTARY_H_
#define MASKKV_KERNELS_BASE_ELEMENTARY_H_

#include <bit>
#include <cstdint>
#include <limits>

namespace maskkv::kernels {

// e^x, error at most 2 units in the last place. Below -87.3365 (the smallest normal result) it is
// 0, so exp(-inf) = 0; above 88.3762 it is +inf; NaN gives NaN.
[[gnu::always_inline]] inline float Exp(float x) {
  constexpr float kLowest = -87.3365F;
  constexpr float kHighest = 88.3762F;
  constexpr float kLog2E = 1.44269504088896341F;
  constexpr float kRounder = 12582912.0F;  // 1.5 * 2^23: adding it rounds to an integer
  constexpr float kLn2High = 0.693359375F;
  constexpr float kLn2Low = -2.12194440e-4F;
  const float clamped = x < kLowest ? kLowest : (x > kHighest ? kHighest : x);
  const float shifted = clamped * kLog2E + kRounder;
  const float n = shifted - kRounder;
  const float r = clamped - n * kLn2High - n * kLn2Low;
  float p = 1.9875691500e-4F;
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * (r * r) + r + 1.0F;
  // The low bits of `shifted` are n in two's complement; n + 127 is the exponent of 2^n.
  const float power = std::bit_cast<float>((std::bit_cast<std::uint32_t>(shifted) + 127U) << 23);
  const float result = p * power;
  const float from_below = x < kLowest ? 0.0F : result;
  return x > kHighest ? std::numeric_limits<float>::infinity() : from_below;
}

// ln x, error at most 2 units in the last place of the result.
// REQUIRES: x is positive, normal and finite (other arguments give garbage, no fault).
[[gnu::always_inline]] inline float Log(float x) {
  constexpr std::uint32_t kSqrtHalf = 0x3f3504f3U;  // bits of sqrt(1/2)
  constexpr std::uint32_t kOne = 0x3f800000U;       // bits of 1
  constexpr float kLn2High = 0.693359375F;
  constexpr float kLn2Low = -2.12194440e-4F;
  // x = 2^e (1 + m) with 1 + m in [sqrt(1/2), sqrt(2)), so that the polynomial's argument is small.
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x) + (kOne - kSqrtHalf);
  const float e = static_cast<float>(static_cast<std::int32_t>(bits >> 23) - 127);
  const float m = std::bit_cast<float>((bits & 0x007fffffU) + kSqrtHalf) - 1.0F;
  const float z = m * m;
  float p = 7.0376836292e-2F;
  p = p * m - 1.1514610310e-1F;
  p = p * m + 1.1676998740e-1F;
  p = p * m - 1.2420140846e-1F;
  p = p * m + 1.4249322787e-1F;
  p = p * m - 1.6668057665e-1F;
  p = p * m + 2.0000714765e-1F;
  p = p * m - 2.4999993993e-1F;
  p = p * m + 3.3333331174e-1F;
  const float tail = m * z * p + e * kLn2Low - 0.5F * z;
  return m + tail + e * kLn2High;
}

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_BASE_ELEMENTARY_H_
