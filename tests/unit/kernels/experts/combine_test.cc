// SPDX-License-Identifier: Apache-2.0
#include "kernels/experts/combine.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/support/closeness.h"
#include "tests/support/seed.h"

namespace maskkv::kernels {
namespace {

using ::maskkv::testing::AllWithin;
using ::maskkv::testing::NormalValues;

TEST(AddWeightedRows, StaysWithinTheRoundingOfAProductAndASum) {
  for (const std::int64_t width : {1, 7, 64, 131}) {
    const std::int64_t ldx = width + 2, ldo = width + 3;
    const std::vector<std::int32_t> rows = {4, 0, 2};
    const std::vector<float> weights = {0.25F, 0.7F, -3.1F};
    const std::vector<float> x = NormalValues(3 * ldx, 1);
    const std::vector<float> before = NormalValues(6 * ldo, 2);
    std::vector<float> out = before;
    AddWeightedRows(x.data(), ldx, width, rows, weights.data(), out.data(), ldo);
    std::vector<double> expected(before.begin(), before.end()), bound(before.size());
    for (std::size_t i = 0; i < rows.size(); ++i) {
      for (std::int64_t c = 0; c < width; ++c) {
        const auto at = static_cast<std::size_t>(rows[i] * ldo + c);
        const double product = static_cast<double>(weights[i]) *
                               x[static_cast<std::size_t>(static_cast<std::int64_t>(i) * ldx + c)];
        expected[at] += product;
        bound[at] = 0x1p-24 * (std::abs(product) + 1.001 * std::abs(expected[at]));
      }
    }
    EXPECT_TRUE(AllWithin<double>(out, expected, [&](std::size_t i) { return bound[i]; })) << width;
  }
}

TEST(AddWeightedRows, NothingToAddIsFine) {
  AddWeightedRows(nullptr, 0, 0, {}, nullptr, nullptr, 0);
  std::vector<float> out = {1, 2};
  AddWeightedRows(nullptr, 2, 2, {}, nullptr, out.data(), 2);
  EXPECT_EQ(out, (std::vector<float>{1, 2}));
}

}  // namespace
}  // namespace maskkv::kernels
