// SPDX-License-Identifier: Apache-2.0
#include "core/policy/head_budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "core/policy/exact_sum.h"
#include "tests/support/seed.h"
#include "tests/support/status_matchers.h"

namespace maskkv::policy::head_budget_test {
namespace {

using ::maskkv::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

using Integers = std::vector<std::int64_t>;
using Reals = std::vector<double>;

Integers Heads(const Reals& preference, std::int64_t layer_budget, double alpha,
               std::int64_t prompt) {
  const auto budgets = AllocateHeadBudgets(preference, layer_budget, alpha, prompt);
  EXPECT_TRUE(budgets.ok()) << budgets.status();
  return budgets.ok() ? *budgets : Integers{};
}

TEST(HeadBudgets, FollowTheEquationOfAnExampleByHand) {
  // N_h = 4, k_l = 10, alpha = 0.5: 5 each, and 20 by preference: 1/2, 1/4, 1/8, 1/8 of them. So
  // x = 15, 10, 7.5, 7.5, whose floors leave one pair.
  EXPECT_THAT(Heads({1, 0.5, 0.25, 0.25}, 10, 0.5, 100), ElementsAre(15, 10, 8, 7));
}

TEST(HeadBudgets, TheRemainderGoesByLargestFraction) {
  // alpha = 0, k_l = 3, N_h = 3: x = 9 P / sum P = 4.5, 2.7, 1.8; floors 4, 2, 1 leave two pairs,
  // for the fractions 0.8 and 0.7.
  EXPECT_THAT(Heads({0.5, 0.3, 0.2}, 3, 0, 100), ElementsAre(4, 3, 2));
}

TEST(HeadBudgets, TiesOfFractionsGoToTheLowerHead) {
  // x = 3.75, 7.5, 3.75: two pairs left for two equal fractions.
  EXPECT_THAT(Heads({0.5, 1, 0.5}, 5, 0, 100), ElementsAre(4, 7, 4));
  // x = 1.5, 3, 1.5: one pair left.
  EXPECT_THAT(Heads({0.5, 1, 0.5}, 2, 0, 100), ElementsAre(2, 3, 1));
}

TEST(HeadBudgets, TiesGoToTheLowerHeadHoweverManyThereAre) {
  // 128 pairs: x = 4/3 for 32 heads and 8/3 for 32 others. Floors leave 32 pairs, for the 32
  // fractions of 2/3.
  Reals preference(64, 1);
  std::fill(preference.begin() + 32, preference.end(), 2);
  Integers expected(64, 1);
  std::fill(expected.begin() + 32, expected.end(), 3);
  EXPECT_EQ(Heads(preference, 2, 0, 1000), expected);
  // 195 pairs: 64 heads claim 3.05 each, one claims nothing and keeps one. Two pairs are left.
  Reals equal(65, 1);
  equal[30] = 0;
  Integers floors(65, 3);
  floors[30] = 1;
  std::fill(floors.begin(), floors.begin() + 2, 4);
  EXPECT_EQ(Heads(equal, 3, 0, 1000), floors);
}

TEST(HeadBudgets, OverflowPastThePromptStaysInTheLayer) {
  EXPECT_THAT(Heads({1, 0, 0, 0}, 10, 0, 12), ElementsAre(12, 10, 9, 9));
  EXPECT_THAT(Heads({1, 0, 0, 0}, 12, 0, 12), ElementsAre(12, 12, 12, 12));
}

TEST(HeadBudgets, EveryHeadKeepsAtLeastOnePair) {
  EXPECT_THAT(Heads({1, 0, 0, 0}, 10, 0, 1000), ElementsAre(37, 1, 1, 1));
  EXPECT_THAT(Heads({1, 0, 0, 0}, 1, 0, 1000), ElementsAre(1, 1, 1, 1));
  // x = 2.5, 5, 2.5, 0, 0: raising the last two to one takes a pair from the smallest claim.
  EXPECT_THAT(Heads({0.5, 1, 0.5, 0, 0}, 2, 0, 100), ElementsAre(2, 4, 2, 1, 1));
  // x = 3, 6, 3, 0: equal claims give back from the higher index.
  EXPECT_THAT(Heads({0.25, 0.5, 0.25, 0}, 3, 0, 100), ElementsAre(3, 6, 2, 1));
}

TEST(HeadBudgets, AlphaOneOrNoPreferenceGivesEqualShares) {
  EXPECT_THAT(Heads({0.9, 0.1, 0.5}, 7, 1, 100), ElementsAre(7, 7, 7));
  EXPECT_THAT(Heads({0, 0, 0}, 7, 0.1, 100), ElementsAre(7, 7, 7));
}

TEST(HeadBudgets, AnEmptyPromptAndAPromptOfOne) {
  EXPECT_THAT(Heads({0.9, 0.1}, 0, 0.1, 0), ElementsAre(0, 0));
  EXPECT_THAT(Heads({0.9, 0.1}, 1, 0.1, 1), ElementsAre(1, 1));
}

TEST(HeadBudgets, LargestSizesStayExact) {
  const std::int64_t prompt = std::numeric_limits<std::int32_t>::max();
  Reals preference(1 << 12, 1e-300);
  preference[7] = 1;
  const Integers budgets = Heads(preference, prompt - 1, 0.1, prompt);
  EXPECT_EQ(std::accumulate(budgets.begin(), budgets.end(), std::int64_t{0}),
            static_cast<std::int64_t>(preference.size()) * (prompt - 1));
  EXPECT_EQ(budgets[7], prompt);
}

TEST(HeadBudgets, RefuseBadArgumentsByName) {
  const Reals good{0.5, 0.1};
  const auto refusal = [](const char* argument, const char* expected, const char* found) {
    return StatusIs(kInvalid, AllOf(HasSubstr(argument), HasSubstr(expected), HasSubstr(found)));
  };
  for (const double alpha : {-0.01, 1.01, kNan, kInf}) {
    EXPECT_THAT(AllocateHeadBudgets(good, 5, alpha, 9),
                refusal("alpha", "expected a number from 0 to 1", "found"));
  }
  EXPECT_THAT(AllocateHeadBudgets(good, 0, 0.1, 9), refusal("layer_budget", "1 to 9", "found 0"));
  EXPECT_THAT(AllocateHeadBudgets(good, 10, 0.1, 9), refusal("layer_budget", "1 to 9", "found 10"));
  EXPECT_THAT(AllocateHeadBudgets(good, 1, 0.1, 0), refusal("layer_budget", "0 to 0", "found 1"));
  EXPECT_THAT(AllocateHeadBudgets(good, 1, 0.1, -1), refusal("prompt_tokens", "0 to", "found -1"));
  EXPECT_THAT(AllocateHeadBudgets(good, 1, 0.1, std::int64_t{1} << 31),
              refusal("prompt_tokens", "0 to 2147483647", "found 2147483648"));
  EXPECT_THAT(AllocateHeadBudgets({}, 1, 0.1, 9), refusal("preference", "heads", "found 0"));
  for (const double bad : {kNan, kInf, -0.1}) {
    EXPECT_THAT(AllocateHeadBudgets(Reals{bad, 0.5}, 5, 0.1, 9),
                refusal("preference: head 0", "a finite number >= 0", "found"));
  }
}

struct Draw {
  Reals preference;
  std::int64_t layer_budget;
  double alpha;
  std::int64_t prompt;
};

Draw RandomDraw(std::mt19937_64& random) {
  const auto integer = [&](std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random);
  };
  Draw draw;
  draw.preference.resize(static_cast<std::size_t>(integer(1, 40)));
  const std::int64_t kind = integer(0, 3);
  for (double& value : draw.preference) {
    const double unit = std::uniform_real_distribution<double>(0, 1)(random);
    if (kind == 0) value = unit;
    if (kind == 1) value = static_cast<double>(integer(0, 4)) / 4;
    if (kind == 2) value = integer(0, 5) == 0 ? unit : 0;
    if (kind == 3) value = std::pow(10.0, static_cast<double>(integer(-300, 0)));
  }
  draw.prompt = integer(0, 1) == 0 ? integer(1, 1500) : integer(1, 6);
  draw.layer_budget = integer(0, 3) == 0 ? draw.prompt : integer(1, draw.prompt);
  draw.alpha = static_cast<double>(integer(0, 10)) / 10;
  return draw;
}

// x_h of equation (15) in the arithmetic that the header fixes.
Reals Claims(const Draw& draw) {
  const auto heads = static_cast<double>(draw.preference.size());
  const auto each = static_cast<double>(draw.layer_budget);
  const double sum = ExactSum(draw.preference);
  Reals claims;
  for (const double p : draw.preference) {
    claims.push_back(sum == 0 ? each
                              : draw.alpha * each + (1 - draw.alpha) * (heads * each) * (p / sum));
  }
  return claims;
}

TEST(HeadBudgets, AlwaysKeepTheExactTotalWithinFloorAndCap) {
  std::mt19937_64 random(testing::Seed());
  for (int round = 0; round < 5000; ++round) {
    const Draw draw = RandomDraw(random);
    SCOPED_TRACE(round);
    const Integers budgets = Heads(draw.preference, draw.layer_budget, draw.alpha, draw.prompt);
    ASSERT_EQ(budgets.size(), draw.preference.size());
    EXPECT_EQ(std::accumulate(budgets.begin(), budgets.end(), std::int64_t{0}),
              draw.layer_budget * static_cast<std::int64_t>(budgets.size()));
    for (const std::int64_t budget : budgets) {
      EXPECT_GE(budget, 1);
      EXPECT_LE(budget, draw.prompt);
    }
  }
}

TEST(HeadBudgets, AreTheNearestIntegersToTheClaims) {
  std::mt19937_64 random(testing::Seed() + 3);
  for (int round = 0; round < 2000; ++round) {
    const Draw draw = RandomDraw(random);
    SCOPED_TRACE(round);
    const Integers budgets = Heads(draw.preference, draw.layer_budget, draw.alpha, draw.prompt);
    const Reals claims = Claims(draw);
    // No pair moved from a head that may give to one that may take would come closer.
    for (std::size_t to = 0; to < budgets.size(); ++to) {
      for (std::size_t from = 0; from < budgets.size(); ++from) {
        if (to == from || budgets[to] == draw.prompt || budgets[from] == 1) continue;
        const double wants = claims[to] - static_cast<double>(budgets[to]);
        const double offers = claims[from] - static_cast<double>(budgets[from]);
        EXPECT_LE(wants, offers + 1 + 1e-9) << "from " << from << " to " << to;
      }
    }
  }
}

TEST(HeadBudgets, AHeadThatClaimsMoreNeverGetsLess) {
  std::mt19937_64 random(testing::Seed() + 1);
  for (int round = 0; round < 2000; ++round) {
    const Draw draw = RandomDraw(random);
    SCOPED_TRACE(round);
    const Integers budgets = Heads(draw.preference, draw.layer_budget, draw.alpha, draw.prompt);
    const Reals claims = Claims(draw);
    for (std::size_t a = 0; a < budgets.size(); ++a) {
      for (std::size_t b = 0; b < budgets.size(); ++b) {
        if (claims[a] > claims[b]) {
          EXPECT_GE(budgets[a], budgets[b]);
        }
      }
    }
  }
}

TEST(HeadBudgets, PermutingHeadsOfDistinctPreferencePermutesTheBudgets) {
  std::mt19937_64 random(testing::Seed() + 2);
  int compared = 0;
  for (int round = 0; round < 3000; ++round) {
    const Draw draw = RandomDraw(random);
    // Heads of distinct preference whose fractions tie all the same are told apart by index.
    std::set<double> fractions;
    for (const double claim : Claims(draw)) fractions.insert(claim - std::floor(claim));
    if (fractions.size() != draw.preference.size()) continue;
    ++compared;
    std::vector<std::size_t> place(draw.preference.size());
    std::iota(place.begin(), place.end(), std::size_t{0});
    std::shuffle(place.begin(), place.end(), random);
    Reals permuted;
    for (const std::size_t head : place) permuted.push_back(draw.preference[head]);
    const Integers budgets = Heads(draw.preference, draw.layer_budget, draw.alpha, draw.prompt);
    const Integers of_permuted = Heads(permuted, draw.layer_budget, draw.alpha, draw.prompt);
    for (std::size_t i = 0; i < place.size(); ++i) {
      EXPECT_EQ(of_permuted[i], budgets[place[i]]) << "round " << round << ", head " << place[i];
    }
  }
  EXPECT_GT(compared, 500);
}

}  // namespace
}  // namespace maskkv::policy::head_budget_test
