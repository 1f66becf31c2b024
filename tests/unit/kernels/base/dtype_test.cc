// SPDX-License-Identifier: Apache-2.0
#include "kernels/base/dtype.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

namespace maskkv::kernels {
namespace {

TEST(Bf16, EveryFiniteValueSurvivesTheRoundTrip) {
  for (std::uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const Bf16 value{static_cast<std::uint16_t>(bits)};
    const float wide = ToFloat(value);
    if (std::isnan(wide)) {
      EXPECT_TRUE(std::isnan(ToFloat(ToBf16(wide)))) << bits;
    } else {
      EXPECT_EQ(ToBf16(wide).bits, value.bits) << bits;
    }
  }
}

TEST(Bf16, RoundsToTheNearestAndTiesToEven) {
  // Neighbours of 1.0 are 2^-7 apart above it.
  const float ulp = std::ldexp(1.0F, -7);
  EXPECT_EQ(ToFloat(ToBf16(1.0F + 0.49F * ulp)), 1.0F);
  EXPECT_EQ(ToFloat(ToBf16(1.0F + 0.5F * ulp)), 1.0F);  // tie, 1.0 is even
  EXPECT_EQ(ToFloat(ToBf16(1.0F + 0.51F * ulp)), 1.0F + ulp);
  EXPECT_EQ(ToFloat(ToBf16(1.0F + 1.5F * ulp)), 1.0F + 2 * ulp);  // tie, goes up to even
}

TEST(Bf16, KeepsInfinitiesAndRoundsTheLargestFloatToInfinity) {
  const float inf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(ToFloat(ToBf16(inf)), inf);
  EXPECT_EQ(ToFloat(ToBf16(-inf)), -inf);
  EXPECT_EQ(ToFloat(ToBf16(std::numeric_limits<float>::max())), inf);
}

TEST(Bf16, RoundingInPlaceEqualsTheRoundTripOfEachElement) {
  std::vector<float> values;
  for (int i = -100; i < 100; ++i) values.push_back(static_cast<float>(i) * 0.12345F);
  std::vector<float> rounded = values;
  RoundToBf16InPlace(rounded.data(), static_cast<std::int64_t>(rounded.size()));
  for (std::size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(rounded[i], ToFloat(ToBf16(values[i])));
  }
}

TEST(Bf16, ProductInputsAreTheNearestValuesOfAnyLengthAndDenormalsMayBeZero) {
  std::mt19937 random(1);
  for (std::size_t length = 0; length < 70; ++length) {
    for (int round = 0; round < 50; ++round) {
      std::vector<float> values;  // any bits: infinities, NaN, denormals too
      for (std::size_t i = 0; i < length; ++i) {
        const std::uint32_t exponents = round % 2 == 0 ? 0xffffffffU : 0xff80ffffU;
        values.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(random()) & exponents));
      }
      constexpr Bf16 kGuard{0x1234};
      std::vector<Bf16> converted(length + 1, kGuard);
      ConvertProductInput(values.data(), static_cast<std::int64_t>(length), converted.data());
      EXPECT_EQ(converted[length].bits, kGuard.bits);
      for (std::size_t i = 0; i < length; ++i) {
        const Bf16 nearest = ToBf16(values[i]);
        if (std::isnan(values[i])) {
          EXPECT_TRUE(std::isnan(ToFloat(converted[i])));
        } else if (std::fpclassify(values[i]) == FP_SUBNORMAL) {
          const auto sign = static_cast<std::uint16_t>(nearest.bits & 0x8000U);
          EXPECT_TRUE(converted[i].bits == nearest.bits || converted[i].bits == sign);
        } else {
          EXPECT_EQ(converted[i].bits, nearest.bits) << values[i];
        }
      }
    }
  }
}

}  // namespace
}  // namespace maskkv::kernels
