// SPDX-License-Identifier: Apache-2.0
#include "core/model/rope_scaling.h"

#include <gtest/gtest.h>

namespace maskkv::model {
namespace {

TEST(RopeThetaFactor, IsThePublishedOneForLlada) {
  const auto factor = [](std::int64_t positions) {
    return RopeThetaFactor(5e5, 128, 4096, positions);
  };
  EXPECT_EQ(factor(8192), 4);
  EXPECT_EQ(factor(16384), 14);
  EXPECT_EQ(factor(24576), 31);
  EXPECT_EQ(factor(32768), 55);
}

TEST(RopeThetaFactor, IsTheFormulasForDream) {
  const auto factor = [](std::int64_t positions) {
    return RopeThetaFactor(1e6, 128, 2048, positions);
  };
  EXPECT_EQ(factor(4096), 5);
  EXPECT_EQ(factor(8192), 25);
  EXPECT_EQ(factor(16384), 126);
}

TEST(RopeThetaFactor, IsOneForShortPromptsAndNeverFalls) {
  double before = 1;
  for (std::int64_t positions = 1; positions <= 1 << 17; positions *= 2) {
    const double factor = RopeThetaFactor(5e5, 128, 4096, positions);
    if (positions <= 4096) EXPECT_EQ(factor, 1) << positions;
    EXPECT_GE(factor, before) << positions;
    before = factor;
  }
  EXPECT_GT(before, 55);
}

TEST(RopeThetaFactor, ATrainingLengthBeyondEveryTurnCountsAllDimensions) {
  // log_theta of the turns is above 1: d_crit is d, and theta grows with the turns alone.
  EXPECT_EQ(RopeThetaFactor(10, 4, 1000, 1000), 16);  // ceil(159.15 / 10)
  EXPECT_EQ(RopeThetaFactor(1e300, 2, 7, 7), 1);
}

TEST(RopeThetaFactorDeathTest, RefusesWhatIsNoModel) {
  EXPECT_DEATH(RopeThetaFactor(1, 4, 100, 100), "rotations");
  EXPECT_DEATH(RopeThetaFactor(10, 3, 100, 100), "rotations");
  EXPECT_DEATH(RopeThetaFactor(10, 4, 6, 100), "rotations");
  EXPECT_DEATH(RopeThetaFactor(10, 4, 100, 0), "rotations");
}

}  // namespace
}  // namespace maskkv::model
