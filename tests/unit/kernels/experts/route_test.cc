// SPDX-License-Identifier: Apache-2.0
#include "kernels/experts/route.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tests/support/closeness.h"
#include "tests/support/seed.h"

namespace maskkv::kernels {
namespace {

using ::maskkv::testing::AllWithin;
using ::maskkv::testing::NormalValues;
using ::testing::ElementsAre;

struct Routed {
  std::vector<std::int32_t> chosen;
  std::vector<float> weights;
};

Routed Routing(decltype(RouteRows) route, const RouteShape& shape, const std::vector<float>& logits,
               std::int64_t ld) {
  const std::int64_t rows = static_cast<std::int64_t>(logits.size()) / ld;
  Routed routed;
  routed.chosen.resize(static_cast<std::size_t>(rows * shape.per_row));
  routed.weights.resize(routed.chosen.size());
  route(shape, logits.data(), rows, ld, routed.chosen.data(), routed.weights.data());
  return routed;
}

TEST(RouteRows, StaysWithinTheDerivedErrorOfTheReference) {
  for (const bool renormalised : {false, true}) {
    for (const auto& [experts, per_row] : {std::pair<std::int64_t, std::int64_t>{1, 1},
                                           {2, 1},
                                           {5, 5},
                                           {7, 3},
                                           {64, 8},
                                           {129, 31}}) {
      const RouteShape shape{experts, per_row, renormalised};
      const std::int64_t ld = experts + 3;
      std::vector<float> logits = NormalValues(20 * ld, static_cast<std::uint64_t>(experts));
      for (float& logit : logits) logit *= 4;
      const Routed routed = Routing(RouteRows, shape, logits, ld);
      const Routed expected = Routing(RouteRowsRef, shape, logits, ld);
      ASSERT_EQ(routed.chosen, expected.chosen) << experts << " " << per_row;
      const auto [low, high] = std::minmax_element(logits.begin(), logits.end());
      double factor = 2.0 * (*high - *low) + static_cast<double>(experts) + 12;
      if (renormalised) factor = 2 * factor + static_cast<double>(per_row);
      EXPECT_TRUE(AllWithin<float>(
          routed.weights, expected.weights,
          [&](std::size_t i) { return (factor + 1) * 0x1p-24 * expected.weights[i]; }))
          << experts << " " << per_row;
    }
  }
}

TEST(RouteRows, EqualProbabilitiesGoToTheLowerExpert) {
  EXPECT_THAT(Routing(RouteRows, {4, 2, false}, {1, 3, 3, 3}, 4).chosen, ElementsAre(1, 2));
  EXPECT_THAT(Routing(RouteRows, {4, 2, false}, {0, 0, 0, 0}, 4).chosen, ElementsAre(0, 1));
  EXPECT_THAT(Routing(RouteRows, {4, 2, false}, {0, 0, 0, 0}, 4).weights,
              ElementsAre(0.25F, 0.25F));
  EXPECT_THAT(Routing(RouteRows, {4, 2, true}, {0, 0, 0, 0}, 4).weights, ElementsAre(0.5F, 0.5F));
}

TEST(RouteRows, ARowDependsOnItselfAlone) {
  const RouteShape shape{64, 8, true};
  const std::vector<float> logits = NormalValues(50 * 64, 7);
  const Routed all = Routing(RouteRows, shape, logits, 64);
  for (std::size_t row = 0; row < 50; ++row) {
    const auto begin = static_cast<std::ptrdiff_t>(row * 64);
    const Routed alone =
        Routing(RouteRows, shape, {logits.begin() + begin, logits.begin() + begin + 64}, 64);
    for (std::size_t i = 0; i < 8; ++i) {
      EXPECT_EQ(alone.chosen[i], all.chosen[row * 8 + i]);
      EXPECT_EQ(alone.weights[i], all.weights[row * 8 + i]);
    }
  }
}

TEST(RouteRows, WhatIsNoDistributionShowsAsNaN) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  for (const std::vector<float>& bad : {std::vector<float>{0, kNaN, 1},
                                        {kNaN, 0, 1},
                                        {0, kInfinity, 1},
                                        {-kInfinity, -kInfinity, -kInfinity}}) {
    const Routed routed = Routing(RouteRows, {3, 2, false}, bad, 3);
    EXPECT_THAT(routed.chosen, ElementsAre(0, 1));
    for (const float weight : routed.weights) EXPECT_TRUE(std::isnan(weight));
  }
  EXPECT_THAT(Routing(RouteRows, {3, 2, false}, {-kInfinity, 0, -kInfinity}, 3).weights,
              ElementsAre(0, 1));
}

TEST(RouteRows, NoRowsAreFine) { RouteRows({4, 2, false}, nullptr, 0, 4, nullptr, nullptr); }

TEST(RouteRowsDeathTest, RefusesMoreChoicesThanExperts) {
  EXPECT_DEATH(RouteRows({4, 5, false}, nullptr, 0, 4, nullptr, nullptr), "shape");
  EXPECT_DEATH(RouteRows({4, 0, false}, nullptr, 0, 4, nullptr, nullptr), "shape");
}

}  // namespace
}  // namespace maskkv::kernels
