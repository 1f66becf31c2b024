// SPDX-License-Identifier: Apache-2.0
#include "kernels/base/elementary.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

namespace maskkv::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// Coprime with the layout of the bits, so that every exponent and all kinds of mantissas are met.
constexpr std::uint32_t kStride = 4099;

double UnitInTheLastPlace(double value) {
  int exponent = 0;
  std::frexp(value, &exponent);
  return std::ldexp(1.0, exponent - 24);
}

TEST(Exp, IsWithinTwoUnitsInTheLastPlaceOverItsRange) {
  double worst = 0.0;
  float worst_at = 0.0F;
  for (std::uint64_t bits = 0; bits < (std::uint64_t{1} << 32); bits += kStride) {
    const float x = std::bit_cast<float>(static_cast<std::uint32_t>(bits));
    if (!(x > -87.3364F && x < 88.3762F)) continue;
    const double exact = std::exp(static_cast<double>(x));
    const double error = std::abs(Exp(x) - exact) / UnitInTheLastPlace(exact);
    if (error > worst) {
      worst = error;
      worst_at = x;
    }
  }
  EXPECT_LE(worst, 2.0) << "at " << worst_at << ": " << Exp(worst_at);
}

TEST(Exp, EndsOfItsRangeAreZeroInfinityAndNan) {
  EXPECT_EQ(Exp(0.0F), 1.0F);
  EXPECT_EQ(Exp(-0.0F), 1.0F);
  EXPECT_EQ(Exp(-kInfinity), 0.0F);
  EXPECT_EQ(Exp(-100.0F), 0.0F);
  EXPECT_EQ(Exp(-std::numeric_limits<float>::max()), 0.0F);
  EXPECT_EQ(Exp(kInfinity), kInfinity);
  EXPECT_EQ(Exp(100.0F), kInfinity);
  EXPECT_TRUE(std::isnan(Exp(std::numeric_limits<float>::quiet_NaN())));
  EXPECT_GT(Exp(-87.3F), 0.0F);
  EXPECT_LT(Exp(88.3F), kInfinity);
}

TEST(Log, IsWithinTwoUnitsInTheLastPlaceForNormalNumbers) {
  double worst = 0.0;
  float worst_at = 1.0F;
  const auto check = [&](std::uint32_t bits) {
    const float x = std::bit_cast<float>(bits);
    const double exact = std::log(static_cast<double>(x));
    const double error = exact == 0.0 ? std::abs(Log(x)) / 0x1p-60
                                      : std::abs(Log(x) - exact) / UnitInTheLastPlace(exact);
    if (error > worst) {
      worst = error;
      worst_at = x;
    }
  };
  for (std::uint32_t bits = 0x00800000U; bits < 0x7f800000U; bits += kStride) check(bits);
  // Around 1, where the result is small.
  for (std::uint32_t bits = 0x3f7f0000U; bits < 0x3f820000U; ++bits) check(bits);
  EXPECT_LE(worst, 2.0) << "at " << worst_at << ": " << Log(worst_at);
}

}  // namespace
}  // namespace maskkv::kernels
