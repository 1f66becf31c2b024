// SPDX-License-Identifier: Apache-2.0
#include "kernels/rope/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/support/closeness.h"
#include "tests/support/seed.h"

namespace maskkv::kernels {
namespace {

using ::maskkv::testing::AllWithin;
using ::maskkv::testing::NormalValues;

class RopeTest : public ::testing::TestWithParam<std::int64_t> {};

TEST_P(RopeTest, StaysWithinTheDerivedErrorOfTheReferenceAtSmallAndLargePositions) {
  const std::int64_t head_dim = GetParam();
  const std::int64_t heads = 3;
  const std::int64_t ld = heads * head_dim + 5;
  const std::vector<std::int32_t> positions = {0, 1, 32767, 17, 17, 4095};
  const auto rows = static_cast<std::int64_t>(positions.size());
  for (const double theta : {10000.0, 500000.0, 27500000.0}) {
    const RopeTable table = RopeTable::Build(theta, head_dim, 32768);
    const std::vector<float> before = NormalValues(rows * ld, 1);
    std::vector<float> x = before;
    std::vector<float> expected = before;
    ApplyRope(table, positions.data(), x.data(), rows, ld, heads);
    ApplyRopeRef(theta, head_dim, positions.data(), expected.data(), rows, ld, heads);
    // Rounded cosine and sine, two products, one sum, the reference's rounding; the angles' f64
    // errors are far below. The gaps between rows must be equal.
    EXPECT_TRUE(AllWithin<float>(
        x, expected,
        [&](std::size_t i) {
          const auto column = static_cast<std::int64_t>(i) % ld;
          if (column >= heads * head_dim) return 0.0;
          const std::int64_t half = head_dim / 2;
          const std::int64_t partner = column % head_dim < half ? half : -half;
          const float other =
              before[static_cast<std::size_t>(static_cast<std::int64_t>(i) + partner)];
          return 4.0 * 0x1p-24 * (std::abs(before[i]) + std::abs(static_cast<double>(other)));
        }))
        << "theta " << theta;
  }
}

INSTANTIATE_TEST_SUITE_P(HeadDims, RopeTest, ::testing::Values(2, 6, 32, 64, 128));

TEST(Rope, PositionZeroChangesNothing) {
  const RopeTable table = RopeTable::Build(500000.0, 64, 1);
  const std::vector<float> before = NormalValues(64, 1);
  std::vector<float> x = before;
  const std::int32_t position = 0;
  ApplyRope(table, &position, x.data(), 1, 64, 1);
  EXPECT_EQ(x, before);
}

TEST(Rope, ScoresDependOnTheDistanceAlone) {
  const RopeTable table = RopeTable::Build(500000.0, 64, 5000);
  const auto score = [&](std::int32_t query, std::int32_t key) {
    std::vector<float> q = NormalValues(64, 1);
    std::vector<float> k = NormalValues(64, 2);
    ApplyRope(table, &query, q.data(), 1, 64, 1);
    ApplyRope(table, &key, k.data(), 1, 64, 1);
    double sum = 0.0;
    for (std::size_t i = 0; i < 64; ++i) sum += static_cast<double>(q[i]) * k[i];
    return sum;
  };
  EXPECT_NEAR(score(10, 3), score(4010, 4003), 1e-4);
  EXPECT_GT(std::abs(score(10, 3) - score(10, 4)), 1e-3);
}

TEST(Rope, ATableOfBf16HoldsTheNearestOfItsSinesAndCosines) {
  const RopeTable exact = RopeTable::Build(1e6, 8, 500);
  const RopeTable rounded = RopeTable::Build(1e6, 8, 500, DType::kBF16);
  std::int64_t changed = 0;
  for (std::int64_t position = 0; position < 500; ++position) {
    for (std::int64_t i = 0; i < 4; ++i) {
      EXPECT_EQ(rounded.Cos(position)[i], ToFloat(ToBf16(exact.Cos(position)[i])));
      EXPECT_EQ(rounded.Sin(position)[i], ToFloat(ToBf16(exact.Sin(position)[i])));
      if (rounded.Cos(position)[i] != exact.Cos(position)[i]) ++changed;
    }
  }
  EXPECT_GT(changed, 1000);
}

TEST(Rope, NothingToRotateIsFine) {
  const RopeTable table = RopeTable::Build(500000.0, 8, 0);
  ApplyRope(table, nullptr, nullptr, 0, 8, 1);
  EXPECT_EQ(table.positions(), 0);
  EXPECT_EQ(table.head_dim(), 8);
}

TEST(RopeDeathTest, RefusesPositionsOutsideTheTableAndOddHeads) {
  const RopeTable table = RopeTable::Build(500000.0, 8, 4);
  std::vector<float> x(8);
  for (const std::int32_t position : {-1, 4}) {
    EXPECT_DEATH(ApplyRope(table, &position, x.data(), 1, 8, 1), "position outside the table");
  }
  EXPECT_DEATH(RopeTable::Build(500000.0, 7, 4), "shape");
}

}  // namespace
}  // namespace maskkv::kernels
