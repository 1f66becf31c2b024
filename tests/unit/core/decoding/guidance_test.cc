// SPDX-License-Identifier: Apache-2.0
#include "core/decoding/guidance.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace maskkv::decoding {
namespace {

TEST(Guidance, PushesLogitsAwayFromTheUnconditionalOnes) {
  std::vector<float> logits{1.5F, -2, 0, 3};
  Guide(std::vector<float>{0.5F, 2, 0, 3}, 2, logits);
  EXPECT_EQ(logits, (std::vector<float>{3.5F, -10, 0, 3}));  // exact in f32
}

TEST(Guidance, ScaleZeroIsWhatWasThereToOneRounding) {
  std::vector<float> logits{0.1F, -7.3F, 12345.678F};
  const std::vector<float> before = logits;
  Guide(std::vector<float>{1e4F, 1e-7F, -0.3F}, 0, logits);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    EXPECT_NEAR(logits[i], before[i], std::abs(before[i]) * 0x1p-23);
  }
}

TEST(Guidance, WhatIsNoNumberStaysNone) {
  const float infinity = std::numeric_limits<float>::infinity();
  std::vector<float> logits{-infinity, std::nanf(""), 1, infinity};
  Guide(std::vector<float>{-infinity, 0, std::nanf(""), 0}, 1, logits);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_TRUE(std::isnan(logits[i])) << i;
  EXPECT_EQ(logits[3], infinity);
}

}  // namespace
}  // namespace maskkv::decoding
