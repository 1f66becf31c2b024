// SPDX-License-Identifier: Apache-2.0
#include "core/policy/level.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

#include "tests/support/seed.h"

namespace maskkv::policy {
namespace {

using Integers = std::vector<std::int64_t>;
using Order = std::vector<std::int32_t>;

// The slow twin: one pair at a time, to the unit that is furthest below its base (which comes first
// in the order among equals), or from the one that is furthest above it (which comes last).
Integers PairByPair(const Integers& bases, const Order& order, std::int64_t low, std::int64_t high,
                    std::int64_t total) {
  Integers filled;
  for (const std::int64_t base : bases) filled.push_back(std::clamp(base, low, high));
  std::int64_t left = total - std::accumulate(filled.begin(), filled.end(), std::int64_t{0});
  const auto claim = [&](std::int32_t unit) {
    const auto i = static_cast<std::size_t>(unit);
    return bases[i] - filled[i];
  };
  for (; left > 0; --left) {
    std::int32_t best = -1;
    for (const std::int32_t unit : order) {
      if (filled[static_cast<std::size_t>(unit)] == high) continue;
      if (best < 0 || claim(unit) > claim(best)) best = unit;
    }
    ++filled[static_cast<std::size_t>(best)];
  }
  for (; left < 0; ++left) {
    std::int32_t worst = -1;
    for (const std::int32_t unit : order) {
      if (filled[static_cast<std::size_t>(unit)] == low) continue;
      if (worst < 0 || claim(unit) <= claim(worst)) worst = unit;
    }
    --filled[static_cast<std::size_t>(worst)];
  }
  return filled;
}

TEST(FillToTotal, GivesTheRemainderInOrder) {
  EXPECT_EQ(FillToTotal(Integers{2, 3, 4}, Order{2, 0, 1}, 0, 100, 11), (Integers{3, 3, 5}));
}

TEST(FillToTotal, WhatAFullUnitCannotHoldGoesToTheOthers) {
  EXPECT_EQ(FillToTotal(Integers{30, 0, 0}, Order{0, 1, 2}, 1, 10, 30), (Integers{10, 10, 10}));
  EXPECT_EQ(FillToTotal(Integers{30, 0, 0}, Order{0, 2, 1}, 1, 10, 19), (Integers{10, 4, 5}));
}

TEST(FillToTotal, WhatTheFloorTakesComesFromTheOthers) {
  EXPECT_EQ(FillToTotal(Integers{8, 0, 0}, Order{0, 1, 2}, 1, 10, 8), (Integers{6, 1, 1}));
}

TEST(FillToTotal, NoUnitsNeedNothing) { EXPECT_TRUE(FillToTotal({}, {}, 1, 9, 0).empty()); }

TEST(FillToTotal, ReachesBothEndsOfTheRange) {
  EXPECT_EQ(FillToTotal(Integers{5, 0}, Order{0, 1}, 1, 7, 2), (Integers{1, 1}));
  EXPECT_EQ(FillToTotal(Integers{5, 0}, Order{0, 1}, 1, 7, 14), (Integers{7, 7}));
  EXPECT_EQ(FillToTotal(Integers{5, 0}, Order{0, 1}, 0, 0, 0), (Integers{0, 0}));
}

TEST(FillToTotal, HugeNumbersTakeNoLongerThanSmallOnes) {
  const std::int64_t high = (std::int64_t{1} << 31) - 1;
  const std::int64_t base = std::int64_t{1} << 52;
  EXPECT_EQ(FillToTotal(Integers{base, 0, 0}, Order{0, 1, 2}, 1, high, 3 * high - 1),
            (Integers{high, high, high - 1}));
}

TEST(FillToTotal, EqualsMovingOnePairAtATime) {
  std::mt19937_64 random(testing::Seed());
  const auto draw = [&](std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random);
  };
  for (int round = 0; round < 3000; ++round) {
    const std::int64_t low = draw(0, 2);
    const std::int64_t high = low + draw(0, 20);
    Integers bases(static_cast<std::size_t>(draw(1, 7)));
    for (std::int64_t& base : bases) base = draw(0, 25);
    Order order(bases.size());
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random);
    const auto units = static_cast<std::int64_t>(bases.size());
    const std::int64_t total = draw(units * low, units * high);
    EXPECT_EQ(FillToTotal(bases, order, low, high, total),
              PairByPair(bases, order, low, high, total))
        << "round " << round;
  }
}

TEST(FillToTotalDeathTest, ATotalOutOfReachIsOurOwnMistake) {
  EXPECT_DEATH(FillToTotal(Integers{1, 1}, Order{0, 1}, 1, 2, 5), "a total that the bounds allow");
}

}  // namespace
}  // namespace maskkv::policy
