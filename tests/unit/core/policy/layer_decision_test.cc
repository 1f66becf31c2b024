// SPDX-License-Identifier: Apache-2.0
#include "core/policy/layer_decision.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "core/policy/head_budget.h"
#include "core/policy/selection.h"
#include "tests/support/seed.h"
#include "tests/support/status_matchers.h"

namespace maskkv::policy::layer_decision_test {
namespace {

using ::maskkv::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

TEST(DecideLayer, GivesTheHeadThatReadsThePromptMore) {
  // Two heads, three prompt keys, one mask key. P = 3/4 and 1/4; x = 3 and 1 of k_l = 2.
  const std::vector<float> scores{1.0F,  0.5F, 1.5F,  1.0F,  //
                                  0.25F, 0.5F, 0.25F, 3.0F};
  MASKKV_ASSERT_OK_AND_ASSIGN(const LayerDecision decision, DecideLayer(scores, 4, 3, 2, 0.0));
  EXPECT_THAT(decision.kept, ElementsAre(ElementsAre(0, 1, 2), ElementsAre(1)));
  EXPECT_THAT(decision.preference, ElementsAre(0.75, 0.25));
  EXPECT_THAT(decision.kept_mass, ElementsAre(3.0, 0.5));
  EXPECT_THAT(decision.prompt_mass, ElementsAre(3.0, 1.0));
}

TEST(DecideLayer, MaskKeysAreNeverKept) {
  const std::vector<float> scores{0.0F, 0.0F, 9.0F, 9.0F};
  MASKKV_ASSERT_OK_AND_ASSIGN(const LayerDecision decision, DecideLayer(scores, 4, 2, 1, 0.1));
  EXPECT_THAT(decision.kept, ElementsAre(ElementsAre(0)));
}

TEST(DecideLayer, AnEmptyPromptKeepsNothing) {
  const std::vector<float> scores{1.0F, 1.0F, 1.0F, 1.0F};
  MASKKV_ASSERT_OK_AND_ASSIGN(const LayerDecision decision, DecideLayer(scores, 2, 0, 0, 0.1));
  EXPECT_THAT(decision.kept, ElementsAre(ElementsAre(), ElementsAre()));
  EXPECT_THAT(decision.prompt_mass, ElementsAre(0.0, 0.0));
}

TEST(DecideLayer, EveryHeadRuleOnOneLayer) {
  // Two heads, four prompt keys, one mask key: head 1 reads the masks.
  const std::vector<float> scores{8, 7, 6, 1, 0,  //
                                  2, 1, 0, 3, 9};
  const auto kept = [&](HeadRule rule, std::int64_t window) {
    const double alpha = 0;
    const auto decision =
        DecideLayer(scores, 5, 4, 2, {.rule = rule, .rates = {&alpha, 1}, .window = window});
    EXPECT_TRUE(decision.ok()) << decision.status();
    return decision.ok() ? decision->kept : std::vector<std::vector<std::int32_t>>{};
  };
  EXPECT_THAT(kept(HeadRule::kUniform, 0), ElementsAre(ElementsAre(0, 1), ElementsAre(0, 3)));
  EXPECT_THAT(kept(HeadRule::kUniform, 1), ElementsAre(ElementsAre(0, 3), ElementsAre(0, 3)));
  EXPECT_THAT(kept(HeadRule::kUniform, 4), ElementsAre(ElementsAre(2, 3), ElementsAre(2, 3)));
  // P = 1 and 6 / 15: claims 4 / 1.4 and 1.6 / 1.4.
  EXPECT_THAT(kept(HeadRule::kPreference, 0), ElementsAre(ElementsAre(0, 1, 2), ElementsAre(3)));
  EXPECT_THAT(kept(HeadRule::kPreference, 1), ElementsAre(ElementsAre(0, 1, 3), ElementsAre(3)));
  // The four best are 8, 7, 6 and 3: claims 2.8 and 1.2.
  EXPECT_THAT(kept(HeadRule::kAdaKv, 0), ElementsAre(ElementsAre(0, 1, 2), ElementsAre(3)));
  EXPECT_THAT(kept(HeadRule::kPool, 0), ElementsAre(ElementsAre(0, 1, 2), ElementsAre(3)));
  EXPECT_THAT(kept(HeadRule::kPool, 1), ElementsAre(ElementsAre(0, 1, 3), ElementsAre(3)));
  EXPECT_THAT(DecideLayer(scores, 5, 4, 5, {.rule = HeadRule::kUniform, .rates = {}}),
              StatusIs(kInvalid, HasSubstr("layer_budget")));
}

TEST(DecideLayer, RefusesBadArgumentsByName) {
  const std::vector<float> scores{1.0F, 1.0F, 1.0F, 1.0F};
  EXPECT_THAT(DecideLayer(scores, 3, 1, 1, 0.1),
              StatusIs(kInvalid, HasSubstr("scores: expected a positive multiple of 3")));
  EXPECT_THAT(DecideLayer({}, 2, 1, 1, 0.1), StatusIs(kInvalid, HasSubstr("scores")));
  EXPECT_THAT(DecideLayer(scores, 0, 0, 0, 0.1), StatusIs(kInvalid, HasSubstr("keys")));
  EXPECT_THAT(DecideLayer(scores, 2, 3, 1, 0.1), StatusIs(kInvalid, HasSubstr("prompt_tokens")));
  EXPECT_THAT(DecideLayer(scores, 2, 2, 3, 0.1), StatusIs(kInvalid, HasSubstr("layer_budget")));
  EXPECT_THAT(DecideLayer(scores, 2, 2, 1, 1.5), StatusIs(kInvalid, HasSubstr("alpha")));
}

TEST(DecideLayer, ABadScoreNamesItsHeadAndPosition) {
  std::vector<float> scores(8, 1.0F);
  scores[6] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(DecideLayer(scores, 4, 3, 1, 0.1),
              StatusIs(kInvalid, AllOf(HasSubstr("head 1"), HasSubstr("position 2"))));
}

TEST(DecideLayer, KeepsTheExactTotalAndTheTopOfEveryHeadForRandomScores) {
  std::mt19937_64 random(testing::Seed());
  const auto below = [&](std::uint64_t n) { return static_cast<std::int64_t>(random() % n); };
  for (int round = 0; round < 400; ++round) {
    SCOPED_TRACE(round);
    const std::int64_t heads = 1 + below(8);
    const std::int64_t prompt = below(50);
    const std::int64_t keys = prompt + 1 + below(20);
    std::vector<float> scores(static_cast<std::size_t>(heads * keys));
    const std::int64_t kind = below(3);
    for (float& score : scores) {
      if (kind == 0) score = static_cast<float>(below(1000)) / 64.0F;
      if (kind == 1) score = static_cast<float>(below(2));
      if (kind == 2) score = below(20) == 0 ? 1e30F : 1e-30F;
    }
    const std::int64_t budget = prompt == 0 ? 0 : 1 + below(static_cast<std::uint64_t>(prompt));
    MASKKV_ASSERT_OK_AND_ASSIGN(const LayerDecision decision,
                                DecideLayer(scores, keys, prompt, budget, 0.1));
    MASKKV_ASSERT_OK_AND_ASSIGN(const std::vector<std::int64_t> pairs,
                                AllocateHeadBudgets(decision.preference, budget, 0.1, prompt));
    std::int64_t total = 0;
    for (std::size_t head = 0; head < decision.kept.size(); ++head) {
      const auto of_prompt = std::span(scores).subspan(head * static_cast<std::size_t>(keys),
                                                       static_cast<std::size_t>(prompt));
      EXPECT_EQ(decision.kept[head], *SelectKept(of_prompt, pairs[head]));
      EXPECT_LE(decision.kept_mass[head], decision.prompt_mass[head] * (1 + 1e-12));
      total += static_cast<std::int64_t>(decision.kept[head].size());
    }
    EXPECT_EQ(total, budget * heads);
  }
}

}  // namespace
}  // namespace maskkv::policy::layer_decision_test
