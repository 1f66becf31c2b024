// SPDX-License-Identifier: Apache-2.0
#include "core/budget/nominal_pairs.h"

#include <numeric>
#include <vector>

#include "core/policy/head_budget.h"
#include "core/policy/layer_budget.h"
#include "gtest/gtest.h"

namespace maskkv::budget {
namespace {

constexpr std::int64_t kLong = 1'000'000;  // a prompt longer than any budget

TEST(NominalPairsTest, AreTheEquationsWithinAPair) {
  Plan plan;
  plan.budget = 100;
  plan.importance = {0.4, 0.05, 0.1, 0.3};
  const std::vector<double> preference{0.9, 0.1, 0.5, 0.5, 0.3, 0.2, 0.0, 0.7};
  const NominalPairs pairs = NominalPairsOf(plan, 4, 2, preference);
  const auto layers = policy::AllocateLayerBudgets(plan.importance, 100, plan.beta, kLong);
  ASSERT_TRUE(layers.ok());
  ASSERT_EQ(pairs.layers.size(), 4U);
  ASSERT_EQ(pairs.heads.size(), 8U);
  for (std::size_t layer = 0; layer < 4; ++layer) {
    EXPECT_NEAR(pairs.layers[layer], static_cast<double>((*layers)[layer]), 1);
    const auto heads = policy::AllocateHeadBudgets(std::span(preference).subspan(2 * layer, 2),
                                                   (*layers)[layer], plan.alpha, kLong);
    ASSERT_TRUE(heads.ok());
    EXPECT_NEAR(pairs.heads[2 * layer], static_cast<double>((*heads)[0]), 3);
    EXPECT_NEAR(pairs.heads[2 * layer + 1], static_cast<double>((*heads)[1]), 3);
  }
  EXPECT_NEAR(pairs.total, 4 * 2 * 100, 1e-9);
  EXPECT_NEAR(std::accumulate(pairs.heads.begin(), pairs.heads.end(), 0.0), 800, 1e-9);
}

TEST(NominalPairsTest, WeightsAndRatesKeepTheTotal) {
  Plan plan;
  plan.coverage = 0.9;
  plan.max_budget = 50;
  plan.layer_weights = {1.5, 0.5};
  plan.head_rates = {0.2, 0.05, 0.1, 0.1};
  const NominalPairs pairs = NominalPairsOf(plan, 2, 2, {});
  EXPECT_EQ(pairs.layers, (std::vector<double>{20 + 45, 20 + 15}));
  EXPECT_NEAR(pairs.heads[0] + pairs.heads[1], 130, 1e-9);
  EXPECT_GT(pairs.heads[0], pairs.heads[1]);
  EXPECT_NEAR(pairs.total, 200, 1e-9);
}

TEST(NominalPairsTest, SayWhatIsKnown) {
  Plan plan;
  EXPECT_TRUE(NominalPairsOf(plan, 0, 0, {}).layers.empty());
  const NominalPairs layers = NominalPairsOf(plan, 3, 0, {});
  EXPECT_EQ(layers.layers, (std::vector<double>{64, 64, 64}));
  EXPECT_TRUE(layers.heads.empty());
  EXPECT_EQ(layers.total, 192);
}

TEST(NominalPairsTest, OnePairIsAllOfTheBase) {
  Plan plan;
  plan.budget = 1;
  EXPECT_EQ(NominalPairsOf(plan, 2, 1, {}).layers, (std::vector<double>{1, 1}));
}

}  // namespace
}  // namespace maskkv::budget
