// SPDX-License-Identifier: Apache-2.0
//
// Head budgets with a base rate for each head.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "core/policy/exact_sum.h"
#include "core/policy/head_budget.h"
#include "core/policy/layer_decision.h"
#include "tests/support/seed.h"
#include "tests/support/status_matchers.h"

namespace maskkv::policy::head_rates_test {
namespace {

using ::maskkv::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

using Integers = std::vector<std::int64_t>;
using Reals = std::vector<double>;

Integers Heads(const Reals& preference, std::int64_t layer_budget, const Reals& rates,
               std::int64_t prompt) {
  const auto budgets = AllocateHeadBudgets(preference, layer_budget, rates, prompt);
  EXPECT_TRUE(budgets.ok()) << budgets.status();
  return budgets.ok() ? *budgets : Integers{};
}

TEST(HeadRates, HoldUpAHeadThatReadsLittle) {
  // k_l = 16: the last head has 16 for sure, 48 go by preference: 24, 12, 6, 6.
  EXPECT_THAT(Heads({0.5, 0.25, 0.125, 0.125}, 16, {0, 0, 0, 1}, 100), ElementsAre(24, 12, 6, 22));
}

TEST(HeadRates, OfOneGiveEqualShares) {
  EXPECT_THAT(Heads({0.9, 0.1, 0.5}, 7, {1, 1, 1}, 100), ElementsAre(7, 7, 7));
  EXPECT_THAT(Heads({0, 0, 0}, 7, {0.5, 0, 1}, 100), ElementsAre(7, 7, 7));
}

TEST(HeadRates, AreRefusedByHead) {
  const Reals preference{0.5, 0.1};
  EXPECT_THAT(AllocateHeadBudgets(preference, 5, Reals{0.1}, 9),
              StatusIs(kInvalid, HasSubstr("head_rates: expected 2 heads, found 1")));
  for (const double bad : {-0.01, 1.01, std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_THAT(AllocateHeadBudgets(preference, 5, Reals{0.1, bad}, 9),
                StatusIs(kInvalid, HasSubstr("head_rates: head 1: expected a number from 0 to 1")));
  }
}

TEST(HeadRates, ThatAreEqualAreTheBaseRateOfTheEquationBitForBit) {
  std::mt19937_64 random(testing::Seed());
  std::uniform_real_distribution<double> unit(0, 1);
  for (int round = 0; round < 5000; ++round) {
    const double alpha = unit(random);
    Reals preference(1 + random() % 40);
    for (double& p : preference) p = unit(random);
    const auto each = static_cast<std::int64_t>(1 + random() % 5000);
    const auto k = static_cast<double>(each);
    const double sum = ExactSum(preference);
    Reals expected;  // equation (15), in the order of its brackets
    for (const double p : preference) {
      expected.push_back(
          (alpha * k) + (((1 - alpha) * (static_cast<double>(preference.size()) * k)) * (p / sum)));
    }
    EXPECT_EQ(HeadClaims(preference, each, Reals(preference.size(), alpha)), expected);
  }
}

struct Draw {
  Reals preference, rates;
  std::int64_t layer_budget = 0, prompt = 0;
};

Draw RandomDraw(std::mt19937_64& random) {
  std::uniform_real_distribution<double> unit(0, 1);
  Draw draw;
  const std::uint64_t kind = random() % 3;
  for (std::uint64_t heads = 1 + random() % 40; heads > 0; --heads) {
    draw.preference.push_back(random() % 4 == 0 ? 0 : unit(random));
    draw.rates.push_back(kind == 0   ? unit(random)
                         : kind == 1 ? static_cast<double>(random() % 2)
                                     : static_cast<double>(random() % 5) / 4);
  }
  draw.prompt = static_cast<std::int64_t>(1 + random() % (random() % 2 == 0 ? 6 : 1500));
  draw.layer_budget =
      static_cast<std::int64_t>(1 + random() % static_cast<std::uint64_t>(draw.prompt));
  return draw;
}

TEST(HeadRates, AlwaysKeepTheExactTotalWithinFloorAndCap) {
  std::mt19937_64 random(testing::Seed() + 1);
  for (int round = 0; round < 5000; ++round) {
    const Draw draw = RandomDraw(random);
    SCOPED_TRACE(round);
    const Integers budgets = Heads(draw.preference, draw.layer_budget, draw.rates, draw.prompt);
    ASSERT_EQ(budgets.size(), draw.preference.size());
    EXPECT_EQ(std::accumulate(budgets.begin(), budgets.end(), std::int64_t{0}),
              draw.layer_budget * std::ssize(budgets));
    for (const std::int64_t budget : budgets) {
      EXPECT_GE(budget, 1);
      EXPECT_LE(budget, draw.prompt);
    }
    for (const double claim : HeadClaims(draw.preference, draw.layer_budget, draw.rates)) {
      EXPECT_GE(claim, 0);
    }
  }
}

TEST(HeadRates, AHeadWhoseRateRisesNeverGetsLess) {
  std::mt19937_64 random(testing::Seed() + 2);
  for (int round = 0; round < 3000; ++round) {
    Draw draw = RandomDraw(random);
    SCOPED_TRACE(round);
    const auto head = static_cast<std::size_t>(random() % draw.rates.size());
    // A head with all the preference claims what the others' rates leave, whatever its own.
    if (draw.preference[head] == ExactSum(draw.preference)) continue;
    const Integers before = Heads(draw.preference, draw.layer_budget, draw.rates, draw.prompt);
    draw.rates[head] = std::min(1.0, draw.rates[head] + 0.05);
    const Integers after = Heads(draw.preference, draw.layer_budget, draw.rates, draw.prompt);
    EXPECT_GE(after[head], before[head]);
  }
}

TEST(HeadRates, DecideALayer) {
  // Preferences 0.8 and 0.2 of ten keys each, k_l = 2: 4 pairs.
  std::vector<float> scores(24, 1);
  for (const std::size_t mask : {10U, 11U}) {
    scores[mask] = 1.25;
    scores[12 + mask] = 20;
  }
  const auto plain = DecideLayer(scores, 12, 10, 2, 0.0);
  const auto held_up = DecideLayer(scores, 12, 10, 2, HeadSplit{.rates = Reals{0, 1}});
  ASSERT_TRUE(plain.ok() && held_up.ok());
  EXPECT_THAT(plain->kept, ElementsAre(ElementsAre(0, 1, 2), ElementsAre(0)));
  EXPECT_THAT(held_up->kept, ElementsAre(ElementsAre(0, 1), ElementsAre(0, 1)));
  EXPECT_THAT(DecideLayer(scores, 12, 10, 2, HeadSplit{.rates = Reals{0, 1, 1}}),
              StatusIs(kInvalid, HasSubstr("head_rates: expected 2 heads, found 3")));
}

}  // namespace
}  // namespace maskkv::policy::head_rates_test
