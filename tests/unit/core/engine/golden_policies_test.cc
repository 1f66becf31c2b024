// SPDX-License-Identifier: Apache-2.0
//
// What every policy keeps of a prompt, against the float64 NumPy oracle
// (tests/data/golden/policies): positions must be equal wherever no f32 implementation can keep
// others, and the other heads are counted and printed. All policies and budgets are cuts of one
// forward.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/engine/heap_kv.h"
#include "core/engine/prefill.h"
#include "core/policy/named_policy.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/core/engine/golden_file.h"
#include "tests/unit/core/engine/test_model.h"

namespace maskkv::engine::golden_policies_test {
namespace {

using nlohmann::json;
using Positions = std::vector<std::int32_t>;

const std::string kFolder = CommittedGolden("policies");
constexpr int kThreads = 2;

class GoldenPoliciesTest : public ::testing::TestWithParam<std::string> {
 protected:
  GoldenPoliciesTest()
      : golden_(ReadGolden(kFolder, GetParam())),
        prompt_(golden_.at("prompt_ids").get<Positions>()),
        masks_(golden_.at("masks")),
        model_(GoldenModel(golden_), kernels::DType::kF32, kThreads,
               static_cast<std::int64_t>(prompt_.size()) + masks_) {}

  EvictionPlan PlanOf(const json& run) const {
    EvictionPlan plan = GoldenPlan(golden_, run.at("policy").get<std::string>(),
                                   run.at("budget").get<std::int64_t>());
    plan.random_seed = golden_.at("seed");
    return plan;
  }

  const json golden_;
  const Positions prompt_;
  const std::int64_t masks_;
  TestModel model_;
};

// Of a random draw: as many pairs as the oracle's, each once, all of the prompt.
void ExpectADraw(const Positions& kept, std::size_t pairs, std::int32_t candidates) {
  EXPECT_EQ(kept.size(), pairs);
  EXPECT_TRUE(std::is_sorted(kept.begin(), kept.end(), std::less_equal<>()));
  if (!kept.empty()) {
    EXPECT_GE(kept.front(), 0);
    EXPECT_LT(kept.back(), candidates);
  }
}

TEST_P(GoldenPoliciesTest, EveryPolicyKeepsTheOraclesPairsWhereverRoundingCannotTurnIt) {
  const json& runs = golden_.at("runs");
  std::vector<HeapKvEntry> entries(runs.size());
  std::vector<PrefillCut> cuts;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    cuts.push_back({.plan = PlanOf(runs.at(i)), .sink = &entries[i]});
  }
  const std::vector<Row> rows = PromptThenMasks(prompt_, masks_, model_.weights.config());
  PrefillForward forward;
  forward.rows = rows;
  MASKKV_ASSERT_OK_AND_ASSIGN(const std::vector<PrefillResult> results,
                              Prefiller(model_.transformer).RunCuts(forward, cuts));
  ASSERT_EQ(results.size(), runs.size());
  std::int64_t compared = 0, undecided = 0, differing = 0;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const json& run = runs.at(i);
    SCOPED_TRACE(run.at("policy").get<std::string>() + " at " + run.at("budget").dump());
    for (std::size_t layer = 0; layer < run.at("decided").size(); ++layer) {
      for (std::size_t head = 0; head < run.at("decided").at(layer).size(); ++head) {
        const Positions kept = KeptPositions(entries[i], layer, head);
        if (run.at("kept").is_null()) {
          ExpectADraw(kept, run.at("head_budgets").at(layer).at(head), golden_.at("candidates"));
          continue;
        }
        const auto expected = run.at("kept").at(layer).at(head).get<Positions>();
        if (run.at("decided").at(layer).at(head).get<bool>()) {
          EXPECT_EQ(kept, expected) << "layer " << layer << " head " << head;
          ++compared;
        } else {
          ++undecided;
          differing += kept == expected ? 0 : 1;
        }
      }
    }
  }
  EXPECT_GT(compared, 50 * undecided);
  std::printf("%s: %lld head selections compared, %lld within the bound, %lld of those differ\n",
              GetParam().c_str(), static_cast<long long>(compared),
              static_cast<long long>(undecided), static_cast<long long>(differing));
}

TEST_P(GoldenPoliciesTest, EveryNameOfTheTableIsAmongTheRuns) {
  for (const std::string& name : policy::PolicyNames()) {
    EXPECT_TRUE(std::ranges::any_of(golden_.at("runs"), [&](const json& run) {
      return run.at("policy") == name;
    })) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenPoliciesTest, ::testing::ValuesIn(GoldenNames(kFolder)),
                         GoldenTestName);

}  // namespace
}  // namespace maskkv::engine::golden_policies_test
