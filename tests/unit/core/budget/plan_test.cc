// SPDX-License-Identifier: Apache-2.0
#include "core/budget/plan.h"

#include <cmath>
#include <functional>
#include <limits>
#include <string>

#include "core/base/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace maskkv::budget::plan_test {
namespace {

using ::testing::HasSubstr;

const double kNaN = std::nan("");
constexpr double kInfinity = std::numeric_limits<double>::infinity();

Plan GoodPlan() {
  Plan plan;
  plan.generation = 1;
  plan.importance = {0.5, 0.1, 0.4};
  plan.layer_weights = {1.5, 0.5, 1.0};
  plan.head_rates = {0.1, 0.2, 0.1, 0.1, 0.0, 1.0};
  return plan;
}

TEST(PlanTest, AcceptsDefaultsWithAGenerationAndEveryFieldSet) {
  Plan plan;
  plan.generation = 1;
  EXPECT_TRUE(Validate(plan).ok()) << Validate(plan);
  EXPECT_TRUE(Validate(GoodPlan()).ok()) << Validate(GoodPlan());
  EXPECT_TRUE(Validate(Policy{}).ok());
}

TEST(PlanTest, NamesTheFieldThatIsWrong) {
  const struct {
    const char* message;
    std::function<void(Plan&)> spoil;
  } cases[] = {
      {"plan.generation: expected 1 to", [](Plan& p) { p.generation = 0; }},
      {"plan.generation", [](Plan& p) { p.generation = kMaxGeneration + 1; }},
      {"plan.model_fingerprint", [](Plan& p) { p.model_fingerprint = "abc"; }},
      {"plan.model_fingerprint", [](Plan& p) { p.model_fingerprint = std::string(64, 'X'); }},
      {"plan.budget: expected an integer from 1 to 2147483647, found 0",
       [](Plan& p) { p.budget = 0; }},
      {"plan.max_budget", [](Plan& p) { p.coverage = 0.5; }},
      {"plan.max_budget", [](Plan& p) { p.max_budget = -1; }},
      {"plan.coverage", [](Plan& p) { p.coverage = kNaN; }},
      {"plan.coverage", [](Plan& p) { p.coverage = 1.01; }},
      {"plan.alpha: expected a number from 0 to 1, found -0.1", [](Plan& p) { p.alpha = -0.1; }},
      {"plan.beta", [](Plan& p) { p.beta = kInfinity; }},
      {"plan.layer_weights[1]", [](Plan& p) { p.layer_weights[1] = kNaN; }},
      {"plan.layer_weights: expected a sum of 3, found 3.5",
       [](Plan& p) { p.layer_weights[1] = 1; }},
      {"plan.layer_weights: expected as many",
       [](Plan& p) {
         p.layer_weights = {1, 1};
       }},
      {"plan.importance[2]", [](Plan& p) { p.importance[2] = -1; }},
      {"plan.importance[0]", [](Plan& p) { p.importance[0] = kInfinity; }},
      {"plan.head_rates: expected a multiple of 3", [](Plan& p) { p.head_rates.pop_back(); }},
      {"plan.head_rates[5]", [](Plan& p) { p.head_rates[5] = 1.5; }},
      {"plan.size of importance",
       [](Plan& p) {
         p.layer_weights.clear();
         p.importance.assign(5000, 0.1);
       }},
      {"plan.cause", [](Plan& p) { p.cause = "a\nb"; }},
      {"plan.cause", [](Plan& p) { p.cause = std::string(65, 'a'); }},
  };
  for (const auto& c : cases) {
    Plan plan = GoodPlan();
    c.spoil(plan);
    const absl::Status status = Validate(plan);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.message;
    EXPECT_EQ(ErrorReason(status), "BAD_PLAN");
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
  }
}

TEST(PlanTest, NamesThePolicysFieldThatIsWrong) {
  const struct {
    const char* message;
    std::function<void(Policy&)> spoil;
  } cases[] = {
      {"policy.max_budget", [](Policy& p) { p.max_budget = 0; }},
      {"policy.min_budget: expected an integer from 1 to 512, found 513",
       [](Policy& p) { p.min_budget = 513; }},
      {"policy.min_budget", [](Policy& p) { p.min_budget = 0; }},
      {"policy.budget: expected an integer from 16 to 512, found 15",
       [](Policy& p) { p.budget = 15; }},
      {"policy.coverage", [](Policy& p) { p.coverage = -0.5; }},
      {"policy.alpha", [](Policy& p) { p.alpha = kNaN; }},
      {"policy.beta", [](Policy& p) { p.beta = 2; }},
      {"policy.target_mass", [](Policy& p) { p.target_mass = kNaN; }},
  };
  for (const auto& c : cases) {
    Policy policy;
    c.spoil(policy);
    const absl::Status status = Validate(policy);
    EXPECT_EQ(ErrorReason(status), "BAD_POLICY");
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
  }
}

TEST(PlanTest, ACoveragePolicyDoesNotReadTheBudget) {
  Policy policy;
  policy.coverage = 0.95;
  policy.budget = 0;
  EXPECT_TRUE(Validate(policy).ok());
}

}  // namespace
}  // namespace maskkv::budget::plan_test
