// SPDX-License-Identifier: Apache-2.0
#include "core/policy/layer_budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "tests/support/seed.h"
#include "tests/support/status_matchers.h"

namespace maskkv::policy::layer_budget_test {
namespace {

using ::maskkv::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr std::int64_t kHuge = std::numeric_limits<std::int64_t>::max();

using Integers = std::vector<std::int64_t>;
using Reals = std::vector<double>;

Integers Layers(const Reals& importance, std::int64_t budget, double beta, std::int64_t prompt) {
  const auto budgets = AllocateLayerBudgets(importance, budget, beta, prompt);
  EXPECT_TRUE(budgets.ok()) << budgets.status();
  return budgets.ok() ? *budgets : Integers{};
}

TEST(LayerBudgets, FollowTheEquationsOfAnExampleByHand) {
  // L = 4, B = 10, beta = 0.4: k_base = 4, k_imp = 24. I_B = 3, I_M = 1: k_grpB = 18, k_grpM = 6.
  // Boundary 4 + 9, middle 4 + 3: 13 + 7 + 7 + 13 = 40 = B L.
  EXPECT_THAT(Layers({2, 0.5, 0.5, 1}, 10, 0.4, 1000), ElementsAre(13, 7, 7, 13));
}

TEST(LayerBudgets, TheRemainderGoesByImportanceOverAllLayers) {
  // L = 5, B = 7, beta = 0.4: k_base = floor(2.8) = 2, k_imp = 25. I_B = 1, I_M = 3: k_grpB = 6.25,
  // k_grpM = 18.75. Boundary 2 + 3, middle 2 + 6: 34 of 35. The most important layer gets the one.
  EXPECT_THAT(Layers({0.5, 0.75, 1.5, 0.75, 0.5}, 7, 0.4, 1000), ElementsAre(5, 8, 9, 8, 5));
}

TEST(LayerBudgets, TiesOfTheRemainderGoToTheLowerLayer) {
  EXPECT_THAT(Layers({0.5, 1, 1, 1, 0.5}, 7, 0.4, 1000), ElementsAre(5, 9, 8, 8, 5));
}

TEST(LayerBudgets, TiesGoToTheLowerLayerHoweverManyThereAre) {
  // L = 64, B = 10, beta = 0.5: k_base = 5, k_imp = 320. I_B = 1.5, I_M = 62 / 2: k_grpB is
  // 14.77, k_grpM is 305.23. Boundary 5 + 7, middle 5 + 4: 582 of 640. The first layer is in front
  // of 57 others of its kind.
  Reals importance(64, 0.5);
  importance.back() = 1;
  importance.front() = 0.5;
  Integers expected(64, 9);
  expected.front() = 12;
  expected.back() = 12 + 1;
  for (std::size_t layer = 0; layer < 57; ++layer) ++expected[layer];
  EXPECT_EQ(Layers(importance, 10, 0.5, 1000), expected);
}

TEST(LayerBudgets, BetaTimesBudgetIsOneDoubleProduct) {
  // 0.29 * 100 is 28.999999999999996 in doubles: k_base = 28, k_imp = 4 * 72, I_B = 0: the boundary
  // keeps the base, the middle 28 + 144.
  EXPECT_THAT(Layers({0, 1, 1, 0}, 100, 0.29, 1000), ElementsAre(28, 172, 172, 28));
}

TEST(LayerBudgets, OverflowPastThePromptGoesToTheOtherLayers) {
  // Without a cap 13, 7, 7, 13; what the boundary cannot hold is shared one unit a round.
  EXPECT_THAT(Layers({2, 0.5, 0.5, 1}, 10, 0.4, 11), ElementsAre(11, 9, 9, 11));
  EXPECT_THAT(Layers({2, 0.5, 0.5, 1}, 10, 0.4, 12), ElementsAre(12, 8, 8, 12));
}

TEST(LayerBudgets, OneOrTwoLayersAreAllBoundary) {
  EXPECT_THAT(Layers({0.7}, 5, 0.4, 100), ElementsAre(5));
  EXPECT_THAT(Layers({0.9, 0.1}, 5, 0.4, 100), ElementsAre(5, 5));
}

TEST(LayerBudgets, NoImportanceAnywhereGivesEqualShares) {
  EXPECT_THAT(Layers({0, 0, 0, 0, 0}, 13, 0.4, 100), ElementsAre(13, 13, 13, 13, 13));
}

TEST(LayerBudgets, ShortPromptsAreKeptWhole) {
  EXPECT_THAT(Layers({0.9, 0.1, 0.5}, 5, 0.4, 0), ElementsAre(0, 0, 0));
  EXPECT_THAT(Layers({0.9, 0.1, 0.5}, 5, 0.4, 1), ElementsAre(1, 1, 1));
  EXPECT_THAT(Layers({0.9, 0.1, 0.5}, 5, 0.4, 5), ElementsAre(5, 5, 5));
  EXPECT_THAT(Layers({0.9, 0.1, 0.5}, kHuge, 0.4, 7), ElementsAre(7, 7, 7));
}

TEST(LayerBudgets, ABudgetOfOneIsOneForEveryLayer) {
  EXPECT_THAT(Layers({5, 0, 0, 0, 5}, 1, 0, 100), ElementsAre(1, 1, 1, 1, 1));
}

TEST(LayerBudgets, ExtremeBaseRates) {
  EXPECT_THAT(Layers({5, 0, 0, 5}, 10, 1, 100), ElementsAre(10, 10, 10, 10));
  // beta = 0: the base is still one pair for every head.
  EXPECT_THAT(Layers({5, 0, 0, 5}, 10, 0, 100), ElementsAre(19, 1, 1, 19));
}

TEST(LayerBudgets, ImportancesFarFromOneNeitherOverflowNorVanish) {
  EXPECT_THAT(Layers({1e300, 0, 0, 1e300}, 10, 0.4, 100), ElementsAre(16, 4, 4, 16));
  EXPECT_THAT(Layers({1e-310, 0, 0, 1e-310}, 10, 0.4, 100), ElementsAre(16, 4, 4, 16));
}

TEST(LayerBudgets, LargestSizesStayExact) {
  const std::int64_t prompt = std::numeric_limits<std::int32_t>::max();
  const std::size_t layers = 1 << 12;
  Reals importance(layers, 1e-3);
  importance.front() = 1e9;
  const Integers budgets = Layers(importance, prompt - 1, 0.4, prompt);
  EXPECT_EQ(std::accumulate(budgets.begin(), budgets.end(), std::int64_t{0}),
            static_cast<std::int64_t>(layers) * (prompt - 1));
  EXPECT_EQ(*std::ranges::max_element(budgets), prompt);
}

TEST(UniformLayerBudgets, GiveEveryLayerTheBudgetOrThePrompt) {
  EXPECT_THAT(*UniformLayerBudgets(3, 5, 100), ElementsAre(5, 5, 5));
  EXPECT_THAT(*UniformLayerBudgets(3, kHuge, 4), ElementsAre(4, 4, 4));
  EXPECT_THAT(UniformLayerBudgets(0, 5, 100), StatusIs(kInvalid, HasSubstr("layers")));
  EXPECT_THAT(UniformLayerBudgets(3, 0, 100), StatusIs(kInvalid, HasSubstr("budget")));
  EXPECT_THAT(UniformLayerBudgets(3, 1, -1), StatusIs(kInvalid, HasSubstr("prompt_tokens")));
}

TEST(LayerBudgets, RefuseBadArgumentsByName) {
  const Reals good{0.5, 0.1, 0.5};
  const auto refusal = [](const char* argument, const char* expected, const char* found) {
    return StatusIs(kInvalid, AllOf(HasSubstr(argument), HasSubstr(expected), HasSubstr(found)));
  };
  EXPECT_THAT(AllocateLayerBudgets(good, 0, 0.4, 9),
              refusal("budget", "expected an integer >= 1", "found 0"));
  EXPECT_THAT(AllocateLayerBudgets(good, -kHuge, 0.4, 9), refusal("budget", ">= 1", "found -9"));
  for (const double beta : {-0.01, 1.01, kNan, kInf}) {
    EXPECT_THAT(AllocateLayerBudgets(good, 5, beta, 9),
                refusal("beta", "expected a number from 0 to 1", "found"));
  }
  EXPECT_THAT(AllocateLayerBudgets(good, 5, 0.4, -1),
              refusal("prompt_tokens", "from 0 to 2147483647", "found -1"));
  EXPECT_THAT(AllocateLayerBudgets(good, 5, 0.4, kHuge),
              refusal("prompt_tokens", "from 0 to 2147483647", "found 9"));
  EXPECT_THAT(AllocateLayerBudgets({}, 5, 0.4, 9), refusal("importance", "layers", "found 0"));
  for (const double bad : {kNan, kInf, -kInf, -1e-300}) {
    EXPECT_THAT(AllocateLayerBudgets(Reals{0.5, bad, 0.5}, 5, 0.4, 9),
                refusal("importance: layer 1", "a finite number >= 0", "found"));
  }
  EXPECT_THAT(AllocateLayerBudgets(Reals{1e308, 1e308, 1e308}, 5, 0.4, 9),
              refusal("importance", "a finite sum", "found inf"));
}

// One draw: sizes and scales that hit caps, floors, ties and zeros often.
struct Draw {
  Reals importance;
  std::int64_t budget;
  double beta;
  std::int64_t prompt;
};

Draw RandomDraw(std::mt19937_64& random) {
  const auto integer = [&](std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random);
  };
  Draw draw;
  draw.importance.resize(static_cast<std::size_t>(integer(1, 40)));
  const std::int64_t kind = integer(0, 3);
  for (double& value : draw.importance) {
    const double unit = std::uniform_real_distribution<double>(0, 1)(random);
    if (kind == 0) value = unit;
    if (kind == 1) value = static_cast<double>(integer(0, 2)) / 2;
    if (kind == 2) value = integer(0, 5) == 0 ? unit : 0;
    if (kind == 3) value = std::pow(10.0, static_cast<double>(integer(-300, 300)));
  }
  draw.budget = integer(0, 1) == 0 ? integer(1, 600) : integer(1, 5);
  draw.prompt = integer(0, 1) == 0 ? integer(0, 2000) : draw.budget + integer(0, 3);
  draw.beta = static_cast<double>(integer(0, 10)) / 10;
  return draw;
}

TEST(LayerBudgets, AlwaysKeepTheExactTotalWithinFloorAndCap) {
  std::mt19937_64 random(testing::Seed());
  for (int round = 0; round < 5000; ++round) {
    const Draw draw = RandomDraw(random);
    SCOPED_TRACE(round);
    const Integers budgets = Layers(draw.importance, draw.budget, draw.beta, draw.prompt);
    ASSERT_EQ(budgets.size(), draw.importance.size());
    EXPECT_EQ(std::accumulate(budgets.begin(), budgets.end(), std::int64_t{0}),
              std::min(draw.budget, draw.prompt) * static_cast<std::int64_t>(budgets.size()));
    for (const std::int64_t budget : budgets) {
      EXPECT_LE(budget, draw.prompt);
      EXPECT_GE(budget, std::min<std::int64_t>(draw.prompt, 1));
    }
  }
}

TEST(LayerBudgets, AMoreImportantLayerOfAGroupNeverGetsLess) {
  std::mt19937_64 random(testing::Seed() + 1);
  for (int round = 0; round < 2000; ++round) {
    const Draw draw = RandomDraw(random);
    SCOPED_TRACE(round);
    const Integers budgets = Layers(draw.importance, draw.budget, draw.beta, draw.prompt);
    for (std::size_t a = 1; a + 1 < budgets.size(); ++a) {
      for (std::size_t b = 1; b + 1 < budgets.size(); ++b) {
        if (draw.importance[a] > draw.importance[b]) {
          EXPECT_GE(budgets[a], budgets[b]);
        }
      }
    }
  }
}

TEST(LayerBudgets, ScalingEveryImportanceByAPowerOfTwoChangesNothing) {
  std::mt19937_64 random(testing::Seed() + 2);
  for (int round = 0; round < 500; ++round) {
    Draw draw = RandomDraw(random);
    for (double& value : draw.importance) value = std::min(value, 1e100);
    for (double& value : draw.importance) value = value < 1e-100 ? 0 : value;
    Reals scaled = draw.importance;
    for (double& value : scaled) value *= 64;
    EXPECT_EQ(Layers(draw.importance, draw.budget, draw.beta, draw.prompt),
              Layers(scaled, draw.budget, draw.beta, draw.prompt))
        << "round " << round;
  }
}

}  // namespace
}  // namespace maskkv::policy::layer_budget_test
