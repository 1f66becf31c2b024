// SPDX-License-Identifier: Apache-2.0
//
// Prefills of a response that was given or is under way, and of a prompt on both sides of it, over
// real channels and a real cache manager.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/engine/prompt.h"
#include "tests/integration/prefill_harness.h"
#include "tests/support/status_matchers.h"

namespace maskkv::testing {
namespace {

engine::EvictionPlan UniformPlan(std::int64_t budget) {
  engine::EvictionPlan plan;
  plan.layer_rule = engine::LayerRule::kUniform;
  plan.budget = budget;
  return plan;
}

TEST(PrefillResponseTest, ARefreshKeepsWhatTheMasksThatAreLeftVoteFor) {
  PrefillHarness harness;
  const model::ModelConfig& config = harness.model->config();
  const std::vector<std::int32_t> ids = TokensOf(config, 100, 1);
  const v1::PrefillRequest plain = RequestOf(ids);
  const auto first = harness.Prefill(plain);
  ASSERT_THAT(first, IsOk());
  EXPECT_EQ(first->plan().generation(), 0U) << "no controller";

  const auto refreshed = [&](const std::vector<std::int32_t>& response) {
    v1::PrefillRequest request = plain;
    request.mutable_response()->Assign(response.begin(), response.end());
    *request.mutable_plan() = first->plan();
    return harness.Prefill(request);
  };
  const std::int32_t mask = config.mask_id;
  const auto same = refreshed(std::vector<std::int32_t>(8, mask));
  ASSERT_THAT(same, IsOk());
  EXPECT_TRUE(same->cached()) << "all masks: the entry that is there";
  const std::vector<std::int32_t> some{mask, 5, mask, 7, 7, mask, mask, mask};
  std::vector<std::int32_t> other = some;
  other[1] = 6;
  const auto answer = refreshed(some);
  ASSERT_THAT(answer, IsOk());
  EXPECT_FALSE(answer->cached());
  EXPECT_FALSE(refreshed(other)->cached());
  EXPECT_TRUE(refreshed(some)->cached());
  EXPECT_EQ(answer->masks(), 8);
  const auto alone =
      EngineAlone(*harness.model, engine::PromptThenResponse(ids, some, config), UniformPlan(6));
  const auto entry = harness.Map(answer->handle());
  ASSERT_NE(entry, nullptr);
  ExpectSameEntry(alone->entry, *entry);
  for (const std::vector<std::int32_t>& bad :
       {std::vector<std::int32_t>{mask}, std::vector<std::int32_t>(8, 5),
        std::vector<std::int32_t>{mask, 5, 5, 5, 5, 5, 5, 1 << 30}}) {
    EXPECT_EQ(ErrorReason(refreshed(bad).status()), "BAD_RESPONSE");
  }
}

TEST(PrefillResponseTest, AGivenPlanTakesThePlaceOfTheControllers) {
  PrefillHarness harness;
  const std::vector<std::int32_t> ids = TokensOf(harness.model->config(), 100, 1);
  v1::PrefillRequest request = RequestOf(ids);
  request.clear_keep();
  v1::Plan& plan = *request.mutable_plan();
  plan.set_generation(9);
  plan.set_budget(3);
  plan.set_alpha(0.1);
  plan.set_beta(0.4);
  plan.set_cause(std::string("operator"));
  const auto answer = harness.Prefill(request);
  ASSERT_THAT(answer, IsOk());
  EXPECT_EQ(answer->budget(), 3);
  EXPECT_EQ(answer->provenance().plan_generation(), 9U);
  EXPECT_EQ(answer->plan().SerializeAsString(), plan.SerializeAsString());
  plan.set_budget(-1);
  EXPECT_EQ(ErrorReason(harness.Prefill(request).status()), "BAD_PLAN");
}

TEST(PrefillResponseTest, APromptOnBothSidesIsKeptAsTheEngineAloneKeepsIt) {
  PrefillHarness harness;
  const model::ModelConfig& config = harness.model->config();
  const std::vector<std::int32_t> ids = TokensOf(config, 60, 1), suffix = TokensOf(config, 40, 2);
  v1::PrefillRequest request = RequestOf(ids);
  request.mutable_prompt()->mutable_suffix()->mutable_tokens()->mutable_ids()->Assign(
      suffix.begin(), suffix.end());
  std::vector<std::int32_t> response(8, config.mask_id);
  response[2] = 5;
  request.mutable_response()->Assign(response.begin(), response.end());
  const auto answer = harness.Prefill(request);
  ASSERT_THAT(answer, IsOk());
  EXPECT_EQ(answer->prompt_tokens(), 100);
  EXPECT_TRUE(harness.Prefill(request)->cached());
  const auto alone = EngineAlone(
      *harness.model, engine::PromptThenResponse(ids, response, config, suffix), UniformPlan(6));
  const auto entry = harness.Map(answer->handle());
  ASSERT_NE(entry, nullptr);
  ExpectSameEntry(alone->entry, *entry);
  EXPECT_EQ(entry->metadata().suffix_tokens, 40);
  EXPECT_EQ(entry->metadata().suffix_digest, arena::TokenDigest(suffix));
  // Another suffix, another response: other entries.
  v1::PrefillRequest other = request;
  other.mutable_prompt()->mutable_suffix()->mutable_tokens()->set_ids(39, 1);
  EXPECT_FALSE(harness.Prefill(other)->cached());
  other = request;
  other.clear_response();
  EXPECT_FALSE(harness.Prefill(other)->cached());
  other.mutable_prompt()->clear_suffix();
  EXPECT_FALSE(harness.Prefill(other)->cached());
}

}  // namespace
}  // namespace maskkv::testing
