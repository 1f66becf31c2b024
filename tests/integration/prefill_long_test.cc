// SPDX-License-Identifier: Apache-2.0
//
// The prefill service and prompts that are long: RoPE scaling, and what memory cannot hold.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "core/base/error.h"
#include "tests/integration/prefill_harness.h"
#include "tests/support/status_matchers.h"

namespace maskkv::testing {
namespace {

TEST(PrefillLongTest, AScaledPromptIsRotatedWithItsFactorAndFoundUnderIt) {
  PrefillHarness harness;
  const model::ModelConfig& config = harness.model->config();
  const std::vector<std::int32_t> ids = TokensOf(config, 100, 1);
  const auto ask = [&](auto choose) {
    v1::PrefillRequest request = RequestOf(ids);
    request.mutable_keep()->set_layer_rule(v1::LAYER_RULE_UNIFORM);
    choose(*request.mutable_rope_scaling());
    return harness.Prefill(request);
  };
  const auto scaled = ask([](v1::RopeScaling& rope) { rope.set_factor(2.5); });
  ASSERT_THAT(scaled, IsOk());
  EXPECT_EQ(scaled->rope_scale(), 2.5);
  const auto entry = harness.Map(scaled->handle());
  EXPECT_EQ(entry->shape().rope_scale, 2.5);
  engine::EvictionPlan plan;
  plan.layer_rule = engine::LayerRule::kUniform;
  plan.budget = 6;
  ExpectSameEntry(EngineAlone(*harness.model, ids, 8, plan, 2.5)->entry, *entry);

  // Within the trained length LongLLaDA's factor is 1: the same entry as without scaling.
  const auto short_enough = ask([](v1::RopeScaling& rope) { rope.mutable_longllada(); });
  ASSERT_THAT(short_enough, IsOk());
  EXPECT_FALSE(short_enough->cached());
  EXPECT_EQ(short_enough->rope_scale(), 1);
  const auto one = ask([](v1::RopeScaling& rope) { rope.set_factor(1); });
  ASSERT_THAT(one, IsOk());
  EXPECT_TRUE(one->cached());
  const auto again = ask([](v1::RopeScaling& rope) { rope.set_factor(2.5); });
  ASSERT_THAT(again, IsOk());
  EXPECT_TRUE(again->cached());
  EXPECT_EQ(again->rope_scale(), 2.5);
  EXPECT_EQ(again->handle().entry_id(), scaled->handle().entry_id());

  for (const double factor : {0.0, 0.5, std::nan(""), 1e308}) {
    EXPECT_EQ(ErrorReason(ask([&](v1::RopeScaling& rope) { rope.set_factor(factor); }).status()),
              "BAD_ROPE_SCALING");
  }
  EXPECT_EQ(ErrorReason(ask([](v1::RopeScaling&) {}).status()), "BAD_ROPE_SCALING");
}

TEST(PrefillLongTest, APromptThatMemoryCannotHoldIsRefusedWithWhatIsMissing) {
  PrefillHarnessOptions options;
  options.service.queue_bytes = 1 << 20;
  PrefillHarness harness(options);
  const model::ModelConfig& config = harness.model->config();
  const auto refused = harness.Prefill(RequestOf(TokensOf(config, 100'000, 1)));
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ErrorReason(refused.status()), "PROMPT_TOO_LARGE");
  // Hidden states, K and V and scores of one layer, f32.
  const std::int64_t needed =
      100'008 * 4 * (config.hidden + 2 * config.kv_heads * config.head_dim + config.kv_heads);
  EXPECT_EQ(std::string(refused.status().message()),
            absl::StrFormat("request: expected at most 1048576 bytes of working memory, found %d "
                            "needed: %d missing",
                            needed, needed - (1 << 20)));
}

}  // namespace
}  // namespace maskkv::testing
