// SPDX-License-Identifier: Apache-2.0
#include "core/policy/layer_weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "core/policy/exact_sum.h"
#include "core/policy/layer_budget.h"
#include "tests/support/seed.h"
#include "tests/support/status_matchers.h"

namespace maskkv::policy::layer_weights_test {
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

Integers Layers(const Reals& weights, std::int64_t budget, double beta, std::int64_t prompt) {
  const auto budgets = AllocateLayersByWeight(weights, budget, beta, prompt);
  EXPECT_TRUE(budgets.ok()) << budgets.status();
  return budgets.ok() ? *budgets : Integers{};
}

TEST(LayersByWeight, ShareWhatTheBaseLeaves) {
  // L = 4, B = 10, beta = 0.4: a base of 4 each, 24 by weight: 12, 6, 3, 3.
  EXPECT_THAT(Layers({4, 2, 1, 1}, 10, 0.4, 1000), ElementsAre(16, 10, 7, 7));
}

TEST(LayersByWeight, TheRemainderGoesByLargestFractionTiesToTheLowerLayer) {
  // beta = 0: a base of 1 each, 35 by weight: 4.375 four times, 17.5. Two are left.
  EXPECT_THAT(Layers({1, 1, 1, 1, 4}, 8, 0, 1000), ElementsAre(6, 5, 5, 5, 19));
}

TEST(LayersByWeight, OverflowPastThePromptGoesToTheOtherLayers) {
  EXPECT_THAT(Layers({0, 0, 8, 0}, 10, 0.5, 1000), ElementsAre(5, 5, 25, 5));
  EXPECT_THAT(Layers({0, 0, 8, 0}, 10, 0.5, 12), ElementsAre(10, 9, 12, 9));
}

TEST(LayersByWeight, ExtremeBudgetsBasesAndPrompts) {
  const Reals weights{4, 2, 1, 1};
  EXPECT_THAT(Layers(weights, 10, 1, 1000), ElementsAre(10, 10, 10, 10));
  EXPECT_THAT(Layers(weights, 1, 0, 1000), ElementsAre(1, 1, 1, 1));
  EXPECT_THAT(Layers(weights, 10, 0.4, 0), ElementsAre(0, 0, 0, 0));
  EXPECT_THAT(Layers(weights, 10, 0.4, 1), ElementsAre(1, 1, 1, 1));
  EXPECT_THAT(Layers(weights, 10, 0.4, 10), ElementsAre(10, 10, 10, 10));
  EXPECT_THAT(Layers(weights, kHuge, 0.4, 7), ElementsAre(7, 7, 7, 7));
  EXPECT_THAT(Layers({1e300, 0, 0, 1e300}, 10, 0.4, 100), ElementsAre(16, 4, 4, 16));
  EXPECT_THAT(Layers({1e-310, 0, 0, 1e-310}, 10, 0.4, 100), ElementsAre(16, 4, 4, 16));
}

TEST(LayersByWeight, LargestSizesStayExact) {
  const std::int64_t prompt = std::numeric_limits<std::int32_t>::max();
  Reals weights(1 << 12, 1e-3);
  weights[5] = 1e9;
  const Integers budgets = Layers(weights, prompt - 1, 0.4, prompt);
  EXPECT_EQ(std::accumulate(budgets.begin(), budgets.end(), std::int64_t{0}),
            static_cast<std::int64_t>(weights.size()) * (prompt - 1));
  EXPECT_EQ(budgets[5], prompt);
}

TEST(LayersByWeight, RefuseBadArgumentsByName) {
  const Reals good{0.5, 0.1, 0.5};
  EXPECT_THAT(AllocateLayersByWeight(good, 0, 0.4, 9),
              StatusIs(kInvalid, HasSubstr("budget: expected an integer >= 1, found 0")));
  EXPECT_THAT(AllocateLayersByWeight(good, 5, kNan, 9), StatusIs(kInvalid, HasSubstr("beta")));
  EXPECT_THAT(AllocateLayersByWeight(good, 5, 0.4, -1),
              StatusIs(kInvalid, HasSubstr("prompt_tokens")));
  EXPECT_THAT(AllocateLayersByWeight({}, 5, 0.4, 9), StatusIs(kInvalid, HasSubstr("found 0")));
  EXPECT_THAT(AllocateLayersByWeight(Reals{0, 0}, 5, 0.4, 9),
              StatusIs(kInvalid, HasSubstr("layer_weights: expected a weight over zero")));
  for (const double bad : {kNan, kInf, -kInf, -1e-300}) {
    EXPECT_THAT(AllocateLayersByWeight(Reals{0.5, bad}, 5, 0.4, 9),
                StatusIs(kInvalid, AllOf(HasSubstr("layer_weights: layer 1"),
                                         HasSubstr("a finite number >= 0"))));
  }
}

struct Draw {
  Reals weights;
  std::int64_t budget;
  double beta;
  std::int64_t prompt;
};

Draw RandomDraw(std::mt19937_64& random) {
  const auto integer = [&](std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random);
  };
  Draw draw;
  draw.weights.resize(static_cast<std::size_t>(integer(1, 40)));
  const std::int64_t kind = integer(0, 3);
  for (double& value : draw.weights) {
    const double unit = std::uniform_real_distribution<double>(0, 1)(random);
    if (kind == 0) value = unit;
    if (kind == 1) value = static_cast<double>(integer(0, 2)) / 2;
    if (kind == 2) value = integer(0, 5) == 0 ? unit : 0;
    if (kind == 3) value = std::pow(10.0, static_cast<double>(integer(-300, 300)));
  }
  draw.weights[static_cast<std::size_t>(integer(0, std::ssize(draw.weights) - 1))] += 0.5;
  draw.budget = integer(0, 1) == 0 ? integer(1, 600) : integer(1, 5);
  draw.prompt = integer(0, 1) == 0 ? integer(0, 2000) : draw.budget + integer(0, 3);
  draw.beta = static_cast<double>(integer(0, 10)) / 10;
  return draw;
}

TEST(LayersByWeight, AlwaysKeepTheExactTotalWithinFloorAndCap) {
  std::mt19937_64 random(testing::Seed());
  for (int round = 0; round < 5000; ++round) {
    const Draw draw = RandomDraw(random);
    SCOPED_TRACE(round);
    const Integers budgets = Layers(draw.weights, draw.budget, draw.beta, draw.prompt);
    ASSERT_EQ(budgets.size(), draw.weights.size());
    EXPECT_EQ(std::accumulate(budgets.begin(), budgets.end(), std::int64_t{0}),
              std::min(draw.budget, draw.prompt) * std::ssize(budgets));
    for (const std::int64_t budget : budgets) {
      EXPECT_LE(budget, draw.prompt);
      EXPECT_GE(budget, std::min<std::int64_t>(draw.prompt, 1));
    }
  }
}

TEST(LayersByWeight, AHeavierLayerNeverGetsLessThanALighterOne) {
  std::mt19937_64 random(testing::Seed() + 1);
  for (int round = 0; round < 2000; ++round) {
    const Draw draw = RandomDraw(random);
    SCOPED_TRACE(round);
    const Integers budgets = Layers(draw.weights, draw.budget, draw.beta, draw.prompt);
    // Weights that differ by less give claims that are one and the same number.
    const double visible = 1e-12 * ExactSum(draw.weights);
    for (std::size_t a = 0; a < budgets.size(); ++a) {
      for (std::size_t b = 0; b < budgets.size(); ++b) {
        if (draw.weights[a] > draw.weights[b] + visible) {
          EXPECT_GE(budgets[a], budgets[b]);
        }
      }
    }
  }
}

TEST(LayersByWeight, ALayerWhoseWeightRisesNeverGetsLess) {
  std::mt19937_64 random(testing::Seed() + 2);
  for (int round = 0; round < 3000; ++round) {
    Draw draw = RandomDraw(random);
    for (double& weight : draw.weights) weight = std::min(weight, 1e3);
    SCOPED_TRACE(round);
    const auto layer = static_cast<std::size_t>(random() % draw.weights.size());
    const Integers before = Layers(draw.weights, draw.budget, draw.beta, draw.prompt);
    draw.weights[layer] = draw.weights[layer] * 1.03 + 0.01;
    EXPECT_GE(Layers(draw.weights, draw.budget, draw.beta, draw.prompt)[layer], before[layer]);
  }
}

TEST(LayersByWeight, EqualWeightsAreTheUniformRule) {
  std::mt19937_64 random(testing::Seed() + 3);
  for (int round = 0; round < 2000; ++round) {
    Draw draw = RandomDraw(random);
    SCOPED_TRACE(round);
    std::ranges::fill(draw.weights, draw.weights[0] + 1e-5);
    EXPECT_EQ(Layers(draw.weights, draw.budget, draw.beta, draw.prompt),
              *UniformLayerBudgets(std::ssize(draw.weights), draw.budget, draw.prompt));
  }
}

}  // namespace
}  // namespace maskkv::policy::layer_weights_test
