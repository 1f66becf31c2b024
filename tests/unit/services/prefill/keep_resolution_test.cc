// SPDX-License-Identifier: Apache-2.0
#include "services/prefill/keep_resolution.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/base/error.h"
#include "maskkv/v1/common.pb.h"
#include "tests/support/status_matchers.h"

namespace maskkv::prefill {
namespace {

using engine::LayerRule;
using engine::Selection;
using ::testing::HasSubstr;

class KeepResolutionTest : public ::testing::Test {
 protected:
  KeepResolutionTest() {
    plan_.generation = 9;
    plan_.model_fingerprint = fingerprint_;
    plan_.budget = 40;
    plan_.alpha = 0.25;
    plan_.beta = 0.5;
    profile_.importance = {0.3, 0.2, 0.1};
  }

  ResolvedKeep Resolve(const v1::KeepPolicy& keep) {
    const absl::StatusOr<ResolvedKeep> resolved = ResolveKeep(&keep, Sources());
    EXPECT_TRUE(resolved.ok()) << resolved.status();
    return resolved.value_or(ResolvedKeep{});
  }
  absl::Status Refused(const v1::KeepPolicy& keep) {
    return ResolveKeep(&keep, Sources()).status();
  }
  KeepSources Sources() const {
    return {.layers = 3,
            .kv_heads = 2,
            .model_fingerprint = fingerprint_,
            .plan = with_plan_ ? &plan_ : nullptr,
            .profile = with_profile_ ? &profile_ : nullptr};
  }

  const std::string fingerprint_ = std::string(64, 'a');
  budget::Plan plan_;
  policy::ImportanceProfile profile_;
  bool with_plan_ = true, with_profile_ = true;
  v1::KeepPolicy keep_;
};

TEST_F(KeepResolutionTest, ARequestThatSaysNothingGetsThePlan) {
  plan_.importance = {0.1, 0.1, 0.9};
  const ResolvedKeep resolved = ResolveKeep(nullptr, Sources()).value_or(ResolvedKeep{});
  EXPECT_EQ(resolved.plan_generation, 9U);
  EXPECT_TRUE(resolved.plan_amount);
  EXPECT_EQ(resolved.plan.selection, Selection::kMaskKv);
  EXPECT_EQ(resolved.plan.budget, 40);
  EXPECT_EQ(resolved.budget(), 40);
  EXPECT_EQ(resolved.plan.alpha, 0.25);
  EXPECT_EQ(resolved.plan.beta, 0.5);
  EXPECT_EQ(resolved.plan.layer_rule, LayerRule::kOffline);
  EXPECT_EQ(resolved.plan.importance, plan_.importance);
}

TEST_F(KeepResolutionTest, APlansWeightsAndHeadRatesAreUsed) {
  plan_.importance = {0.1, 0.1, 0.9};
  plan_.layer_weights = {0.5, 1, 1.5};
  plan_.head_rates = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6};
  const ResolvedKeep resolved = Resolve(keep_);
  EXPECT_EQ(resolved.plan.layer_rule, LayerRule::kWeights);
  EXPECT_EQ(resolved.plan.layer_weights, plan_.layer_weights);
  EXPECT_TRUE(resolved.plan.importance.empty());
  EXPECT_EQ(resolved.plan.head_rates, plan_.head_rates);
  keep_.set_alpha(0.7);
  EXPECT_TRUE(Resolve(keep_).plan.head_rates.empty());
  EXPECT_EQ(Resolve(keep_).plan.alpha, 0.7);
}

TEST_F(KeepResolutionTest, ARequestsOwnBudgetIsExactAndNotThePlans) {
  keep_.set_budget(7);
  const ResolvedKeep resolved = Resolve(keep_);
  EXPECT_EQ(resolved.plan.budget, 7);
  EXPECT_FALSE(resolved.plan_amount);
  EXPECT_EQ(resolved.plan_generation, 9U);  // its rates are the plan's
  plan_.coverage = 0.9;
  EXPECT_EQ(Resolve(keep_).plan.coverage, 0);
  EXPECT_EQ(Resolve(keep_).budget(), 7);
}

TEST_F(KeepResolutionTest, ACoverageTargetLeavesNothingElseInForce) {
  plan_.layer_weights = {0.5, 1, 1.5};
  plan_.head_rates = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6};
  keep_.set_coverage(0.95);
  keep_.set_max_budget(100);
  const ResolvedKeep resolved = Resolve(keep_);
  EXPECT_EQ(resolved.plan.coverage, 0.95);
  EXPECT_EQ(resolved.plan.max_budget, 100);
  EXPECT_EQ(resolved.budget(), 0);
  EXPECT_EQ(resolved.plan.layer_rule, LayerRule::kUniform);
  EXPECT_TRUE(resolved.plan.layer_weights.empty() && resolved.plan.head_rates.empty());
  EXPECT_EQ(resolved.plan.alpha, engine::EvictionPlan{}.alpha);
}

TEST_F(KeepResolutionTest, ThePlansCoverageHasThePlansBound) {
  plan_.coverage = 0.8;
  plan_.max_budget = 50;
  EXPECT_EQ(Resolve(keep_).plan.max_budget, 50);
  EXPECT_TRUE(Resolve(keep_).plan_amount);
  keep_.set_max_budget(20);
  EXPECT_EQ(Resolve(keep_).plan.max_budget, 20);
}

TEST_F(KeepResolutionTest, WithoutAPlanTheProfileDecidesAndWithoutBothAllLayersAreEqual) {
  with_plan_ = false;
  ResolvedKeep resolved = Resolve(keep_);
  EXPECT_EQ(resolved.plan_generation, 0U);
  EXPECT_FALSE(resolved.plan_amount);
  EXPECT_EQ(resolved.plan.layer_rule, LayerRule::kOffline);
  EXPECT_EQ(resolved.plan.importance, profile_.importance);
  EXPECT_EQ(resolved.plan.budget, 64);
  with_profile_ = false;
  resolved = Resolve(keep_);
  EXPECT_EQ(resolved.plan.layer_rule, LayerRule::kUniform);
  EXPECT_EQ(resolved.plan.beta, engine::EvictionPlan{}.beta);
}

TEST_F(KeepResolutionTest, APlanOfAnotherModelIsAsIfItWereNotThere) {
  const auto ignored = [&] { return Resolve(keep_).plan_generation == 0; };
  EXPECT_FALSE(ignored());
  plan_.model_fingerprint = std::string(64, 'b');
  EXPECT_TRUE(ignored());
  plan_.model_fingerprint = "";
  EXPECT_FALSE(ignored());
  plan_.importance = {0.1, 0.2};
  EXPECT_TRUE(ignored());
  plan_.importance.clear();
  plan_.layer_weights = {1, 1, 1, 1};
  EXPECT_TRUE(ignored());
  plan_.layer_weights.clear();
  plan_.head_rates = {0.1, 0.1, 0.1};
  EXPECT_TRUE(ignored());
  plan_.head_rates.clear();
  plan_.alpha = std::nan("");
  EXPECT_TRUE(ignored());
}

TEST_F(KeepResolutionTest, LayerRulesOfTheRequestWin) {
  plan_.layer_weights = {0.5, 1, 1.5};
  keep_.set_layer_rule(v1::LAYER_RULE_OFFLINE);
  EXPECT_EQ(Resolve(keep_).plan.importance, profile_.importance);
  EXPECT_TRUE(Resolve(keep_).plan.layer_weights.empty());
  keep_.set_layer_rule(v1::LAYER_RULE_ONLINE);
  EXPECT_EQ(Resolve(keep_).plan.layer_rule, LayerRule::kOnline);
  keep_.set_layer_rule(v1::LAYER_RULE_UNIFORM);
  EXPECT_EQ(Resolve(keep_).plan.layer_rule, LayerRule::kUniform);
  keep_.set_layer_rule(v1::LAYER_RULE_PLAN);
  EXPECT_EQ(Resolve(keep_).plan.layer_rule, LayerRule::kWeights);
}

TEST_F(KeepResolutionTest, TheOfflineRuleNeedsAProfile) {
  with_profile_ = false;
  keep_.set_layer_rule(v1::LAYER_RULE_OFFLINE);
  EXPECT_EQ(ErrorReason(Refused(keep_)), "NO_PROFILE");
  EXPECT_TRUE(absl::IsFailedPrecondition(Refused(keep_)));
  plan_.importance = {0.1, 0.1, 0.9};
  EXPECT_EQ(Resolve(keep_).plan.importance, plan_.importance);
}

TEST_F(KeepResolutionTest, FullAndRandomUseNothingThatTheyDoNotNeed) {
  plan_.layer_weights = {0.5, 1, 1.5};
  keep_.set_selection(v1::SELECTION_FULL);
  keep_.set_budget(3);
  ResolvedKeep resolved = Resolve(keep_);
  EXPECT_EQ(resolved.plan.selection, Selection::kFull);
  EXPECT_EQ(resolved.budget(), 0);
  EXPECT_TRUE(resolved.plan.layer_weights.empty());
  EXPECT_EQ(resolved.plan.alpha, engine::EvictionPlan{}.alpha);
  keep_.set_selection(v1::SELECTION_RANDOM);
  keep_.set_random_seed(5);
  resolved = Resolve(keep_);
  EXPECT_EQ(resolved.plan.selection, Selection::kRandom);
  EXPECT_EQ(resolved.plan.budget, 3);
  EXPECT_EQ(resolved.plan.random_seed, 5U);
  keep_.clear_amount();
  EXPECT_EQ(Resolve(keep_).plan.budget, 40);
  keep_.set_coverage(0.5);
  EXPECT_EQ(ErrorReason(Refused(keep_)), "BAD_KEEP");
}

TEST_F(KeepResolutionTest, APolicyByNameIsExactlyThat) {
  plan_.layer_weights = {0.5, 1, 1.5};
  plan_.head_rates = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6};
  keep_.set_policy("snapkv");
  ResolvedKeep resolved = Resolve(keep_);
  EXPECT_EQ(policy::PolicyName(resolved.plan.Parts()), "snapkv");
  EXPECT_EQ(resolved.plan.budget, 40);  // the plan's
  EXPECT_FALSE(resolved.plan_amount);   // but nothing to learn from
  EXPECT_TRUE(resolved.plan.layer_weights.empty() && resolved.plan.head_rates.empty());
  EXPECT_EQ(resolved.plan.alpha, engine::EvictionPlan{}.alpha);
  EXPECT_EQ(resolved.plan.beta, engine::EvictionPlan{}.beta);
  keep_.set_policy("maskkv-back");
  keep_.set_budget(5);
  keep_.set_beta(0.75);
  resolved = Resolve(keep_);
  EXPECT_EQ(policy::PolicyName(resolved.plan.Parts()), "maskkv-back");
  EXPECT_EQ(resolved.budget(), 5);
  EXPECT_EQ(resolved.plan.alpha, 0.25);
  EXPECT_EQ(resolved.plan.beta, 0.75);
  EXPECT_EQ(resolved.plan.importance, profile_.importance);
  EXPECT_TRUE(resolved.plan.head_rates.empty());
  keep_.set_policy("masks/pyramid/adakv");
  EXPECT_EQ(policy::PolicyName(Resolve(keep_).plan.Parts()), "masks/pyramid/adakv");
}

TEST_F(KeepResolutionTest, NamesOfSelectionsAreThose) {
  keep_.set_random_seed(5);
  keep_.set_policy("random");
  ResolvedKeep resolved = Resolve(keep_);
  EXPECT_EQ(resolved.plan.selection, Selection::kRandom);
  EXPECT_EQ(resolved.plan.random_seed, 5U);
  EXPECT_EQ(resolved.plan.budget, 40);
  keep_.set_policy("full");
  resolved = Resolve(keep_);
  EXPECT_EQ(resolved.plan.selection, Selection::kFull);
  EXPECT_EQ(resolved.budget(), 0);
  EXPECT_EQ(resolved.plan.random_seed, 0U);
}

TEST_F(KeepResolutionTest, CoverageIsMaskKvsAlone) {
  keep_.set_coverage(0.9);
  keep_.set_policy("maskkv");
  EXPECT_EQ(Resolve(keep_).plan.coverage, 0.9);
  keep_.set_policy("masks/offline/preference");
  EXPECT_EQ(Resolve(keep_).plan.coverage, 0.9);
  for (const char* name : {"snapkv", "maskkv-online", "random", "full"}) {
    keep_.set_policy(name);
    EXPECT_EQ(ErrorReason(Refused(keep_)), "BAD_KEEP");
    EXPECT_THAT(Refused(keep_),
                testing::StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("coverage")));
  }
  keep_.clear_amount();
  plan_.max_budget = 50;
  plan_.coverage = 0.8;  // an operator's target is no other policy's
  keep_.set_policy("snapkv");
  EXPECT_EQ(Resolve(keep_).plan.coverage, 0);
  EXPECT_EQ(Resolve(keep_).plan.budget, engine::EvictionPlan{}.budget);
  keep_.set_policy("maskkv");
  EXPECT_EQ(Resolve(keep_).plan.coverage, 0.8);
}

TEST_F(KeepResolutionTest, PoliciesFromAProfileNeedOne) {
  with_profile_ = false;
  for (const char* name : {"maskkv", "squeeze", "maskkv-no-heads"}) {
    keep_.set_policy(name);
    EXPECT_EQ(ErrorReason(Refused(keep_)), "NO_PROFILE");
    EXPECT_THAT(Refused(keep_), testing::StatusIs(absl::StatusCode::kFailedPrecondition,
                                                  HasSubstr("keep: policy: expected")));
  }
  keep_.set_policy("adakv");
  EXPECT_EQ(policy::PolicyName(Resolve(keep_).plan.Parts()), "adakv");
  plan_.importance = {0.1, 0.1, 0.9};
  keep_.set_policy("squeeze");
  EXPECT_EQ(Resolve(keep_).plan.importance, plan_.importance);
}

TEST_F(KeepResolutionTest, APolicyThatIsNoneIsRefused) {
  keep_.set_policy("h2o");
  EXPECT_EQ(ErrorReason(Refused(keep_)), "BAD_KEEP");
  EXPECT_THAT(Refused(keep_),
              testing::StatusIs(absl::StatusCode::kInvalidArgument,
                                HasSubstr("keep: policy: expected one of maskkv, ")));
  keep_.set_policy("recent/uniform/adakv");
  EXPECT_EQ(ErrorReason(Refused(keep_)), "BAD_KEEP");
  keep_.set_policy("snapkv");
  keep_.set_selection(v1::SELECTION_MASKKV);
  EXPECT_THAT(Refused(keep_),
              testing::StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("selection")));
  keep_.clear_selection();
  keep_.set_layer_rule(v1::LAYER_RULE_UNIFORM);
  EXPECT_EQ(ErrorReason(Refused(keep_)), "BAD_KEEP");
}

TEST_F(KeepResolutionTest, ValuesOutOfRangeAreRefusedByName) {
  const auto refused = [&](const char* field, auto&& set) {
    v1::KeepPolicy keep;
    set(keep);
    const absl::Status status = Refused(keep);
    EXPECT_EQ(ErrorReason(status), "BAD_KEEP") << status;
    EXPECT_THAT(status, testing::StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(field)));
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  refused("kv_dtype",
          [](v1::KeepPolicy& keep) { keep.set_kv_dtype(static_cast<v1::KvDtype>(77)); });
  refused("budget", [](v1::KeepPolicy& keep) { keep.set_budget(0); });
  refused("budget", [](v1::KeepPolicy& keep) { keep.set_budget(-5); });
  refused("budget", [](v1::KeepPolicy& keep) { keep.set_budget(std::int64_t{1} << 31); });
  refused("coverage", [](v1::KeepPolicy& keep) { keep.set_coverage(0); });
  refused("coverage", [](v1::KeepPolicy& keep) { keep.set_coverage(1.0001); });
  refused("coverage", [&](v1::KeepPolicy& keep) { keep.set_coverage(nan); });
  refused("max_budget", [](v1::KeepPolicy& keep) { keep.set_max_budget(-1); });
  refused("alpha", [&](v1::KeepPolicy& keep) { keep.set_alpha(nan); });
  refused("alpha", [](v1::KeepPolicy& keep) { keep.set_alpha(1.5); });
  refused("beta", [](v1::KeepPolicy& keep) { keep.set_beta(-0.1); });
  refused("selection",
          [](v1::KeepPolicy& keep) { keep.set_selection(static_cast<v1::Selection>(77)); });
  refused("layer_rule",
          [](v1::KeepPolicy& keep) { keep.set_layer_rule(static_cast<v1::LayerRule>(77)); });
}

}  // namespace
}  // namespace maskkv::prefill
