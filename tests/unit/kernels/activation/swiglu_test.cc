// SPDX-License-Identifier: Apache-2.0
#include "kernels/activation/swiglu.h"

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

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(SwiGlu, StaysWithinSixUnitsInTheLastPlaceOfTheReference) {
  for (const std::int64_t width : {1, 3, 16, 37, 259, 1376}) {
    for (const float scale : {1e-3F, 1.0F, 30.0F}) {
      const std::int64_t ld = 2 * width;  // gate | up side by side, as one product writes them
      const std::vector<float> both = NormalValues(4 * ld, 1, scale);
      std::vector<float> y(static_cast<std::size_t>(4 * width));
      std::vector<float> expected(y.size());
      SwiGlu(both.data(), both.data() + width, 4, ld, width, y.data(), width);
      SwiGluRef(both.data(), both.data() + width, 4, ld, width, expected.data(), width);
      EXPECT_TRUE(
          AllWithin<float>(y, expected,
                           [&](std::size_t i) {
                             const auto row = static_cast<std::int64_t>(i) / width;
                             const float up = both[static_cast<std::size_t>(row * ld + width) + i -
                                                   static_cast<std::size_t>(row * width)];
                             return 12.0 * 0x1p-24 * std::abs(static_cast<double>(expected[i])) +
                                    4e-37 * std::abs(static_cast<double>(up));
                           }))
          << "width " << width << " scale " << scale;
    }
  }
}

TEST(SwiGlu, WorksInPlaceOfTheGateAndKeepsTheGaps) {
  std::vector<float> gate = NormalValues(3 * 10, 2);
  const std::vector<float> before = gate;
  const std::vector<float> up = NormalValues(3 * 10, 3);
  std::vector<float> apart(3 * 7);
  SwiGlu(gate.data(), up.data(), 3, 10, 7, apart.data(), 7);
  SwiGlu(gate.data(), up.data(), 3, 10, 7, gate.data(), 10);
  for (std::size_t row = 0; row < 3; ++row) {
    for (std::size_t i = 0; i < 10; ++i) {
      EXPECT_EQ(gate[row * 10 + i], i < 7 ? apart[row * 7 + i] : before[row * 10 + i]);
    }
  }
}

TEST(SwiGlu, EndsOfTheRangeGoToZeroAndToTheProduct) {
  const std::vector<float> gate = {0.0F, -200.0F, 200.0F, std::numeric_limits<float>::quiet_NaN(),
                                   kInfinity};
  const std::vector<float> up = {5.0F, 3.0F, 3.0F, 1.0F, 2.0F};
  std::vector<float> y(5);
  SwiGlu(gate.data(), up.data(), 1, 5, 5, y.data(), 5);
  EXPECT_EQ(y[0], 0.0F);
  EXPECT_EQ(y[1], 0.0F);
  EXPECT_EQ(y[2], 600.0F);
  EXPECT_TRUE(std::isnan(y[3]));
  EXPECT_EQ(y[4], kInfinity);
  SwiGlu(nullptr, nullptr, 0, 5, 5, nullptr, 5);
}

}  // namespace
}  // namespace maskkv::kernels
