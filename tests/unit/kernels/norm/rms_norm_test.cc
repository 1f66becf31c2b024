// SPDX-License-Identifier: Apache-2.0
#include "kernels/norm/rms_norm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tests/support/closeness.h"
#include "tests/support/seed.h"

namespace maskkv::kernels {
namespace {

using ::maskkv::testing::AllWithin;
using ::maskkv::testing::NormalValues;

class RmsNormTest : public ::testing::TestWithParam<std::int64_t> {};

TEST_P(RmsNormTest, StaysWithinTheDerivedErrorOfTheReference) {
  const std::int64_t width = GetParam();
  for (const float scale : {1e-12F, 1.0F, 1e12F}) {
    const std::vector<float> x = NormalValues(5 * width, 1, scale);
    const std::vector<float> weight = NormalValues(width, 2);
    std::vector<float> y(x.size());
    std::vector<float> expected(x.size());
    RmsNorm(x.data(), 5, width, width, weight.data(), 1e-5F, y.data(), width);
    RmsNormRef(x.data(), 5, width, width, weight.data(), 1e-5F, expected.data(), width);
    // Half of the error of the sum of squares (width / 16 additions a lane, 4 to fold), its mean
    // and eps; root, reciprocal, two products; the reference's own rounding.
    const double relative = (static_cast<double>(width) / 32.0 + 9.0) * 0x1p-24;
    EXPECT_TRUE(AllWithin<float>(
        y, expected,
        [&](std::size_t i) { return relative * std::abs(static_cast<double>(expected[i])); }))
        << "scale " << scale;
  }
}

TEST_P(RmsNormTest, WorksInPlaceAndLeavesTheGapsBetweenRowsAlone) {
  const std::int64_t width = GetParam();
  const std::int64_t ld = width + 3;
  std::vector<float> x = NormalValues(4 * ld, 3);
  const std::vector<float> before = x;
  const std::vector<float> weight = NormalValues(width, 4);
  std::vector<float> apart(static_cast<std::size_t>(4 * width));
  RmsNorm(x.data(), 4, ld, width, weight.data(), 1e-6F, apart.data(), width);
  RmsNorm(x.data(), 4, ld, width, weight.data(), 1e-6F, x.data(), ld);
  for (std::int64_t row = 0; row < 4; ++row) {
    for (std::int64_t i = 0; i < ld; ++i) {
      const auto at = static_cast<std::size_t>(row * ld + i);
      const float expected =
          i < width ? apart[static_cast<std::size_t>(row * width + i)] : before[at];
      ASSERT_EQ(x[at], expected) << "row " << row << " column " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Widths, RmsNormTest,
                         ::testing::Values(1, 2, 15, 16, 17, 31, 33, 259, 512, 4096));

TEST(RmsNorm, ARowDoesNotDependOnTheOthers) {
  const std::vector<float> x = NormalValues(7 * 100, 5);
  const std::vector<float> weight = NormalValues(100, 6);
  std::vector<float> all(x.size());
  RmsNorm(x.data(), 7, 100, 100, weight.data(), 1e-5F, all.data(), 100);
  std::vector<float> one(100);
  RmsNorm(x.data() + 300, 1, 100, 100, weight.data(), 1e-5F, one.data(), 100);
  EXPECT_TRUE(std::equal(one.begin(), one.end(), all.begin() + 300));
}

TEST(RmsNorm, NoRowsZeroRowsAndNan) {
  const std::vector<float> weight(20, 2.0F);
  RmsNorm(nullptr, 0, 20, 20, weight.data(), 1e-5F, nullptr, 20);
  std::vector<float> x(40, 0.0F);
  x[25] = std::numeric_limits<float>::quiet_NaN();
  RmsNorm(x.data(), 2, 20, 20, weight.data(), 1e-5F, x.data(), 20);
  for (std::size_t i = 0; i < 20; ++i) EXPECT_EQ(x[i], 0.0F);
  for (std::size_t i = 20; i < 40; ++i) EXPECT_TRUE(std::isnan(x[i]));
}

}  // namespace
}  // namespace maskkv::kernels
