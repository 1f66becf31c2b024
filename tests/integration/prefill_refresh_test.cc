// SPDX-License-Identifier: Apache-2.0
//
// Refreshes through the prefill service: an answer under way, and the plan of the first prefill.
#include <gtest/gtest.h>

#include <vector>

#include "core/base/error.h"
#include "services/common/status.h"
#include "tests/integration/prefill_harness.h"
#include "tests/support/status_matchers.h"

namespace maskkv::testing {
namespace {

TEST(PrefillRefreshTest, ARefreshKeepsWhatTheMasksThatAreLeftVoteFor) {
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

TEST(PrefillRefreshTest, AGivenPlanTakesThePlaceOfTheControllers) {
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

}  // namespace
}  // namespace maskkv::testing
