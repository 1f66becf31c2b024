// SPDX-License-Identifier: Apache-2.0
#include "kernels/base/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
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

}  // namespace
}  // namespace maskkv::kernels
