// SPDX-License-Identifier: Apache-2.0
#include "services/budget/policy_flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <string>

#include "core/base/error.h"
#include "core/budget/quality_curve.h"
#include "tests/support/status_matchers.h"

namespace maskkv::budget_service {
namespace {

absl::StatusOr<budget::Policy> Parse(const std::string& arguments,
                                     const std::string& model_fingerprint = "") {
  CLI::App app("test");
  PolicyFlags flags;
  flags.Declare(app);
  try {
    app.parse(arguments);
  } catch (const CLI::ParseError& error) {
    return absl::InvalidArgumentError(error.what());
  }
  return flags.policy(model_fingerprint);
}

TEST(PolicyFlagsTest, NoFlagsAreThePolicysDefaults) {
  MASKKV_ASSERT_OK_AND_ASSIGN(const budget::Policy policy, Parse(""));
  EXPECT_EQ(policy, budget::Policy{});
}

TEST(PolicyFlagsTest, LimitsMakeRoomForTheBudgetUnlessTheyAreGiven) {
  MASKKV_ASSERT_OK_AND_ASSIGN(const budget::Policy small, Parse("--budget 4"));
  EXPECT_EQ(small.min_budget, 4);
  MASKKV_ASSERT_OK_AND_ASSIGN(const budget::Policy large, Parse("--budget 1000"));
  EXPECT_EQ(large.max_budget, 1000);
  EXPECT_EQ(ErrorReason(Parse("--budget 4 --min-budget 8").status()), "BAD_POLICY");
  EXPECT_EQ(ErrorReason(Parse("--min-budget 100 --max-budget 50").status()), "BAD_POLICY");
}

TEST(PolicyFlagsTest, ACoverageTakesThePlaceOfABudget) {
  MASKKV_ASSERT_OK_AND_ASSIGN(const budget::Policy policy, Parse("--coverage 0.95 --max-budget 8"));
  EXPECT_EQ(policy.coverage, 0.95);
  EXPECT_EQ(policy.max_budget, 8);
  EXPECT_EQ(policy.min_budget, 8);
  EXPECT_FALSE(Parse("--coverage 0.95 --budget 8").ok());
  EXPECT_FALSE(Parse("--coverage 0").ok());
  EXPECT_FALSE(Parse("--coverage 1.5").ok());
}

TEST(PolicyFlagsTest, AQualityCurveNamesTheBudget) {
  budget::QualityCurve curve{.model_fingerprint = "abc",
                             .policy = "maskkv",
                             .prompts = 1,
                             .agreement = 0.9,
                             .points = {{.budget = 700, .predictions = 10, .agreed = 9}}};
  const std::string path = ::testing::TempDir() + "policy_flags_quality.json";
  ASSERT_TRUE(budget::SaveQualityCurve(curve, path).ok());
  MASKKV_ASSERT_OK_AND_ASSIGN(const budget::Policy policy, Parse("--quality " + path));
  EXPECT_EQ(policy.budget, 700);
  EXPECT_EQ(policy.max_budget, 700);
  EXPECT_FALSE(Parse("--budget 4 --quality " + path).ok());
  EXPECT_FALSE(Parse("--coverage 0.5 --quality " + path).ok());
  EXPECT_THAT(Parse("--quality " + path, "abc"), testing::IsOk());
  EXPECT_EQ(ErrorReason(Parse("--quality " + path, "abd").status()), "MODEL_MISMATCH");
  curve.policy = "maskkv-pool";
  ASSERT_TRUE(budget::SaveQualityCurve(curve, path).ok());
  EXPECT_THAT(
      Parse("--quality " + path).status(),
      testing::StatusIs(absl::StatusCode::kInvalidArgument, ::testing::HasSubstr("field policy")));
  curve.policy = "maskkv";
  curve.agreement = 1;
  ASSERT_TRUE(budget::SaveQualityCurve(curve, path).ok());
  EXPECT_THAT(
      Parse("--quality " + path).status(),
      testing::StatusIs(absl::StatusCode::kInvalidArgument, ::testing::HasSubstr("field budget")));
  EXPECT_FALSE(Parse("--quality " + path + ".none").ok());
}

TEST(PolicyFlagsTest, AdaptationIsSwitchedByTrueAndFalse) {
  MASKKV_ASSERT_OK_AND_ASSIGN(const budget::Policy policy,
                              Parse("--adapt-budget false --adapt-shares=false --target-mass 0.8"));
  EXPECT_FALSE(policy.adapt_budget);
  EXPECT_FALSE(policy.adapt_shares);
  EXPECT_EQ(policy.target_mass, 0.8);
  EXPECT_FALSE(Parse("--adapt-budget maybe").ok());
}

}  // namespace
}  // namespace maskkv::budget_service
