// SPDX-License-Identifier: Apache-2.0
#include "core/budget/shares.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "core/policy/layer_budget.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/seed.h"

namespace maskkv::budget {
namespace {

using std::chrono::seconds;
using ::testing::IsEmpty;

constexpr double kAlpha = 0.1;
const std::vector<double> kImportance{0.4, 0.03, 0.06, 0.02, 0.02};

constexpr TimePoint At(int second) { return TimePoint(seconds(second)); }

double Sum(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

TEST(StartWeightsTest, ReproduceTheEquationsWithinTheRemainder) {
  const std::vector<double> weights = StartWeights(kImportance, 5);
  EXPECT_NEAR(Sum(weights), 5, 1e-12);
  constexpr std::int64_t kB = 100'000;
  const auto budgets = policy::AllocateLayerBudgets(kImportance, kB, 0.4, 2'000'000'000);
  ASSERT_TRUE(budgets.ok());
  for (std::size_t i = 0; i < weights.size(); ++i) {
    EXPECT_NEAR(0.4 * kB + 0.6 * kB * weights[i], static_cast<double>((*budgets)[i]), 1.0);
  }
}

TEST(StartWeightsTest, AreEvenWithoutImportanceAndForTwoLayers) {
  EXPECT_EQ(StartWeights({}, 3), (std::vector<double>{1, 1, 1}));
  EXPECT_EQ(StartWeights(std::vector<double>{0, 0, 0}, 3), (std::vector<double>{1, 1, 1}));
  EXPECT_EQ(StartWeights(std::vector<double>{1, 0.5}, 2), (std::vector<double>{1, 1}));
}

TEST(ScaleWithinTest, MeetsTheTotalWithinTheBoundsForRandomInputs) {
  std::mt19937_64 random(testing::Seed());
  std::uniform_real_distribution<double> unit(0.01, 1);
  for (int round = 0; round < 2000; ++round) {
    std::vector<double> values, low, high;
    for (std::uint64_t n = 1 + random() % 40; n > 0; --n) {
      values.push_back(unit(random));
      low.push_back(unit(random));
      high.push_back(low.back() + unit(random));
    }
    const double share = unit(random);
    const double total = Sum(low) + share * (Sum(high) - Sum(low));
    const std::vector<double> scaled = ScaleWithin(values, low, high, total);
    EXPECT_NEAR(Sum(scaled), total, 1e-10 * total);
    for (std::size_t i = 0; i < scaled.size(); ++i) {
      EXPECT_GE(scaled[i], low[i]);
      EXPECT_LE(scaled[i], high[i]);
    }
  }
}

TEST(SharesTest, StartEmptyAndStayUntilEnoughIsKnown) {
  Shares shares(kImportance, 5, 2, Tuning{});
  EXPECT_THAT(shares.layer_weights(), IsEmpty());
  EXPECT_FALSE(shares.Step(kAlpha, At(1000)));
  shares.Observe(31, std::vector{0.5, 0.99, 0.99, 0.99, 0.99}, {}, At(1000));
  EXPECT_FALSE(shares.Step(kAlpha, At(1060)));
  shares.Observe(1, std::vector{0.5, 0.99, 0.99, 0.99, 0.99}, {}, At(1059));
  EXPECT_FALSE(shares.Step(kAlpha, At(1059)));
  EXPECT_TRUE(shares.Step(kAlpha, At(1060)));
  EXPECT_FALSE(shares.Step(kAlpha, At(1200))) << "new prefills first";
}

TEST(SharesTest, LayersThatLoseMoreGetMore) {
  Shares shares(kImportance, 5, 2, Tuning{});
  shares.Observe(64, std::vector{0.95, 0.95, 0.5, 0.95, 0.95}, {}, At(0));
  ASSERT_TRUE(shares.Step(kAlpha, At(60)));
  const std::vector<double> start = StartWeights(kImportance, 5);
  const std::vector<double>& weights = shares.layer_weights();
  ASSERT_EQ(weights.size(), 5U);
  EXPECT_GT(weights[2], start[2]);
  EXPECT_LT(weights[0], start[0]);
  EXPECT_LT(weights[2] / start[2], 1.4) << "a small step";
  EXPECT_NEAR(Sum(weights), 5, 1e-9);
  shares.CheckInvariants(kAlpha);
}

TEST(SharesTest, EqualLossesMoveNothing) {
  Shares shares(kImportance, 5, 2, Tuning{});
  shares.Observe(64, std::vector{0.8, 0.82, 0.79, 0.81, 0.8}, std::vector(10, 0.5), At(0));
  EXPECT_FALSE(shares.Step(kAlpha, At(60)));
  EXPECT_THAT(shares.layer_weights(), IsEmpty());
  EXPECT_THAT(shares.head_rates(), IsEmpty());
}

TEST(SharesTest, NothingToWinMovesNothing) {
  Shares shares(kImportance, 5, 2, Tuning{});
  shares.Observe(64, std::vector{1.0, 1.0, 0.99, 1.0, 1.0}, {}, At(0));
  EXPECT_FALSE(shares.Step(kAlpha, At(60)));
}

TEST(SharesTest, WeightsStopAtTheirBoundsAndRestThere) {
  Shares shares({}, 4, 1, Tuning{});
  int last_change = 0;
  for (int t = 0; t < 100 * 60; t += 60) {
    shares.Observe(64, std::vector{0.0, 0.99, 0.99, 0.99}, {}, At(t));
    if (shares.Step(kAlpha, At(t))) last_change = t;
    shares.CheckInvariants(kAlpha);
  }
  EXPECT_LT(last_change, 40 * 60);
  EXPECT_NEAR(shares.layer_weights()[0], 2, 1e-6);
  EXPECT_NEAR(shares.layer_weights()[1], 2.0 / 3, 1e-6);
}

TEST(SharesTest, HeadsThatReadThePromptGetAHigherRateAndSettle) {
  Shares shares(kImportance, 5, 2, Tuning{});
  std::vector<double> preference(10, 0.5);
  preference[2] = 0.9;
  preference[3] = 0.1;
  int changes = 0;
  for (int t = 0; t < 100 * 60; t += 60) {
    shares.Observe(64, {}, preference, At(t));
    changes += shares.Step(kAlpha, At(t)) ? 1 : 0;
    shares.CheckInvariants(kAlpha);
  }
  ASSERT_EQ(shares.head_rates().size(), 10U);
  EXPECT_LT(changes, 15);
  EXPECT_NEAR(shares.head_rates()[0], kAlpha, 1e-9);
  EXPECT_GT(shares.head_rates()[2], 0.13);
  EXPECT_LT(shares.head_rates()[3], 0.07);
  EXPECT_NEAR(shares.head_rates()[2] + shares.head_rates()[3], 2 * kAlpha, 1e-9);
}

TEST(SharesTest, RatesStayWithinBoundsForAnyAlpha) {
  for (const double alpha : {0.0, 1e-9, 0.3, 0.7, 1.0}) {
    Shares shares(kImportance, 5, 2, Tuning{});
    for (int t = 0; t < 60 * 60; t += 60) {
      shares.Observe(64, {}, std::vector<double>{1, 0, 0, 0, 1, 1, 0, 1, 0.5, 0.1}, At(t));
      shares.Step(alpha, At(t));
      shares.CheckInvariants(alpha);
    }
  }
}

TEST(SharesTest, HeadsAreLearnedFromTheFirstReport) {
  Shares shares(kImportance, 5, 0, Tuning{});
  EXPECT_FALSE(shares.Fits(4, 0));
  EXPECT_FALSE(shares.Fits(5, 12));
  EXPECT_TRUE(shares.Fits(5, 15));
  shares.Observe(1, {}, std::vector(15, 0.5), At(0));
  EXPECT_EQ(shares.kv_heads(), 3);
  EXPECT_FALSE(shares.Fits(5, 10));
  EXPECT_TRUE(shares.Fits(0, 0));
}

TEST(SharesTest, WithoutAModelNothingMoves) {
  Shares shares({}, 0, 0, Tuning{});
  EXPECT_TRUE(shares.Fits(7, 13));
  shares.Observe(100, std::vector(7, 0.1), std::vector(13, 0.2), At(0));
  EXPECT_FALSE(shares.Step(kAlpha, At(1000)));
}

TEST(SharesTest, RestoresWhatFitsAndDropsWhatDoesNot) {
  Shares first(kImportance, 5, 2, Tuning{});
  std::vector<double> preference(10, 0.5);
  preference[2] = 0.1;
  first.Observe(64, std::vector{0.95, 0.95, 0.5, 0.95, 0.95}, preference, At(0));
  ASSERT_TRUE(first.Step(kAlpha, At(60)));
  Shares second(kImportance, 5, 0, Tuning{});
  second.Restore(first.layer_weights(), first.head_rates(), kAlpha);
  EXPECT_EQ(second.layer_weights(), first.layer_weights());
  EXPECT_EQ(second.head_rates(), first.head_rates());
  EXPECT_EQ(second.kv_heads(), 2);
  Shares third(kImportance, 5, 2, Tuning{});
  third.Restore(std::vector{5.0, 0.0, 0.0, 0.0, 0.0}, std::vector(10, 0.9), kAlpha);
  EXPECT_THAT(third.layer_weights(), IsEmpty());
  EXPECT_THAT(third.head_rates(), IsEmpty());
  third.Restore(std::vector{1.0, 1.0}, std::vector(9, 0.1), kAlpha);
  EXPECT_THAT(third.layer_weights(), IsEmpty());
  EXPECT_THAT(third.head_rates(), IsEmpty());
}

}  // namespace
}  // namespace maskkv::budget
