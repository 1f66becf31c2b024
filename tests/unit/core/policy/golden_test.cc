// SPDX-License-Identifier: Apache-2.0
//
// Against the NumPy oracle (python/maskkv_oracle), which was written from the equations alone.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/policy/coverage.h"
#include "core/policy/head_budget.h"
#include "core/policy/layer_budget.h"
#include "core/policy/layer_decision.h"
#include "core/policy/layer_weights.h"
#include "core/policy/selection.h"
#include "nlohmann/json.hpp"
#include "tests/support/status_matchers.h"
#include "tests/unit/core/policy/golden_policy.h"

namespace maskkv::policy {
namespace {

using nlohmann::json;
using Integers = std::vector<std::int64_t>;
using Positions = std::vector<std::int32_t>;
using Reals = std::vector<double>;
using Scores = std::vector<float>;

TEST(Golden, LayerBudgetsAreTheOracles) {
  for (const json& golden : GoldenCases("layers", 100)) {
    SCOPED_TRACE(golden.dump());
    MASKKV_ASSERT_OK_AND_ASSIGN(
        const Integers budgets,
        AllocateLayerBudgets(golden["importance"].get<Reals>(), golden["budget"], golden["beta"],
                             golden["prompt_tokens"]));
    EXPECT_EQ(budgets, golden["layer_budgets"].get<Integers>());
  }
}

TEST(Golden, HeadBudgetsAreTheOracles) {
  for (const json& golden : GoldenCases("heads", 100)) {
    SCOPED_TRACE(golden.dump());
    MASKKV_ASSERT_OK_AND_ASSIGN(
        const Integers budgets,
        AllocateHeadBudgets(golden["preference"].get<Reals>(), golden["layer_budget"],
                            golden["alpha"].get<double>(), golden["prompt_tokens"]));
    EXPECT_EQ(budgets, golden["head_budgets"].get<Integers>());
  }
}

TEST(Golden, LayersByWeightAreTheOracles) {
  for (const json& golden : GoldenCases("weights", 100)) {
    SCOPED_TRACE(golden.dump());
    MASKKV_ASSERT_OK_AND_ASSIGN(
        const Integers budgets,
        AllocateLayersByWeight(golden["weights"].get<Reals>(), golden["budget"], golden["beta"],
                               golden["prompt_tokens"]));
    EXPECT_EQ(budgets, golden["layer_budgets"].get<Integers>());
  }
}

TEST(Golden, HeadBudgetsByRatesAreTheOracles) {
  for (const json& golden : GoldenCases("rates", 100)) {
    SCOPED_TRACE(golden.dump());
    MASKKV_ASSERT_OK_AND_ASSIGN(
        const Integers budgets,
        AllocateHeadBudgets(golden["preference"].get<Reals>(), golden["layer_budget"],
                            golden["rates"].get<Reals>(), golden["prompt_tokens"]));
    EXPECT_EQ(budgets, golden["head_budgets"].get<Integers>());
  }
}

TEST(Golden, PositionsByCoverageAreTheOracles) {
  for (const json& golden : GoldenCases("coverage", 50)) {
    SCOPED_TRACE(golden.dump());
    Scores scores;
    for (const json& head : golden["scores"]) {
      for (const json& score : head) scores.push_back(score);
    }
    const auto keys = static_cast<std::int64_t>(golden["scores"][0].size());
    MASKKV_ASSERT_OK_AND_ASSIGN(const std::vector<Positions> kept,
                                SelectByCoverage(scores, keys, golden["prompt_tokens"],
                                                 golden["coverage"], golden["max_budget"]));
    EXPECT_EQ(kept, golden["kept"].get<std::vector<Positions>>());
  }
}

TEST(Golden, KeptPositionsAreTheOracles) {
  for (const json& golden : GoldenCases("selection", 30)) {
    SCOPED_TRACE(golden.dump());
    MASKKV_ASSERT_OK_AND_ASSIGN(const Positions kept,
                                SelectKept(golden["scores"].get<Scores>(), golden["k"]));
    EXPECT_EQ(kept, golden["kept"].get<Positions>());
  }
}

TEST(Golden, LayerDecisionsAreTheOracles) {
  for (const json& golden : GoldenCases("decisions", 30)) {
    SCOPED_TRACE(golden.dump());
    Scores scores;
    for (const json& head : golden["scores"]) {
      for (const json& score : head) scores.push_back(score);
    }
    const auto keys = static_cast<std::int64_t>(golden["scores"][0].size());
    MASKKV_ASSERT_OK_AND_ASSIGN(const LayerDecision decision,
                                DecideLayer(scores, keys, golden["prompt_tokens"],
                                            golden["layer_budget"], golden["alpha"].get<double>()));
    EXPECT_EQ(decision.kept, golden["kept"].get<std::vector<Positions>>());
    // Scores are multiples of 2^-12, so every sum is exact and so is its quotient's rounding.
    EXPECT_EQ(decision.preference, golden["preference"].get<Reals>());
    EXPECT_EQ(decision.prompt_mass, golden["prompt_mass"].get<Reals>());
    EXPECT_EQ(decision.kept_mass, golden["kept_mass"].get<Reals>());
  }
}

}  // namespace
}  // namespace maskkv::policy
