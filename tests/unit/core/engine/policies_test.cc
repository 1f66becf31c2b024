// SPDX-License-Identifier: Apache-2.0
//
// Whole prefills under the policies that MaskKV is compared with: what must hold whatever the
// scores.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "core/engine/heap_kv.h"
#include "core/engine/prefill.h"
#include "core/policy/window.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/core/engine/test_model.h"

namespace maskkv::engine::policies_test {
namespace {

using ::maskkv::testing::StatusIs;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

class PoliciesTest : public ::testing::Test {
 protected:
  explicit PoliciesTest(int threads = 2)
      : model_(absl::StrCat(MASKKV_SOURCE_DIR, "/tests/data/golden/checkpoints/deep"),
               kernels::DType::kF32, threads, 400) {}

  const model::ModelConfig& config() const { return model_.weights.config(); }

  EvictionPlan Plan(const std::string& name, std::int64_t budget) const {
    EvictionPlan plan;
    const auto parts = policy::ParsePolicy(name);
    EXPECT_TRUE(parts.ok()) << parts.status();
    if (parts.ok()) plan.Follow(*parts);
    plan.budget = budget;
    for (std::int64_t layer = 0; layer < config().layers; ++layer) {
      plan.importance.push_back(layer == 0 ? 0.5 : 0.1);
    }
    return plan;
  }

  PrefillResult Prefill(const EvictionPlan& plan, HeapKvEntry& entry, std::int32_t tokens,
                        std::int64_t masks = 6) {
    std::vector<std::int32_t> prompt;
    for (std::int32_t i = 0; i < tokens; ++i) prompt.push_back((11 * i) % 47);
    const std::vector<Row> rows = PromptThenMasks(prompt, masks, config());
    PrefillRequest request;
    request.rows = rows;
    request.plan = plan;
    const auto result = Prefiller(model_.transformer).Run(request, entry);
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? *result : PrefillResult{};
  }

  TestModel model_;
};

TEST_F(PoliciesTest, StreamingKeepsSinksAndTheEnd) {
  HeapKvEntry entry;
  Prefill(Plan("streaming", 6), entry, 50);
  for (std::int64_t layer = 0; layer < config().layers; ++layer) {
    EXPECT_THAT(entry.Positions(layer, 0), ElementsAre(0, 1, 2, 47, 48, 49));
  }
}

TEST_F(PoliciesTest, AWindowIsInEveryHead) {
  for (const char* name : {"snapkv", "pyramidkv", "squeeze", "adakv", "window/uniform/pool",
                           "window/uniform/preference"}) {
    SCOPED_TRACE(name);
    HeapKvEntry entry;
    const PrefillResult result = Prefill(Plan(name, 12), entry, 300);
    for (std::int64_t layer = 0; layer < config().layers; ++layer) {
      for (std::int64_t head = 0; head < config().kv_heads; ++head) {
        const std::span<const std::int32_t> kept = entry.Positions(layer, head);
        const std::int64_t forced = std::min<std::int64_t>(6, std::ssize(kept));
        for (std::int64_t i = 0; i < forced; ++i) {
          EXPECT_EQ(kept[kept.size() - 1 - static_cast<std::size_t>(i)], 299 - i);
        }
      }
    }
    EXPECT_EQ(result.pairs(), 12 * config().layers * config().kv_heads);
  }
}

TEST_F(PoliciesTest, LayersGetWhatTheirRuleSays) {
  HeapKvEntry pyramid, squeeze;
  const PrefillResult falling = Prefill(Plan("pyramidkv", 20), pyramid, 300);
  EXPECT_THAT(falling.layers.front().pairs, Each(39));
  EXPECT_THAT(falling.layers.back().pairs, Each(1));
  // All layers but the first are alike and highest: 0.4 B each.
  const PrefillResult squeezed = Prefill(Plan("squeeze", 20), squeeze, 300);
  EXPECT_THAT(squeezed.layers.back().pairs, Each(8));
  EXPECT_THAT(squeezed.layers.front().pairs, Each(20 + 12 * (config().layers - 1)));
}

// The mass is the masks' whoever voted, so by mask voting nobody keeps more at the same counts.
TEST_F(PoliciesTest, KeptMassIsTheMasks) {
  HeapKvEntry masks, snap, prompt, all;
  const double best = Prefill(Plan("mask-voting", 10), masks, 300).kept_mass();
  EXPECT_LE(Prefill(Plan("snapkv", 10), snap, 300).kept_mass(), best);
  EXPECT_LE(Prefill(Plan("prompt-voting", 10), prompt, 300).kept_mass(), best);
  EXPECT_LE(Prefill(Plan("all-voting", 10), all, 300).kept_mass(), best);
  HeapKvEntry pooled;
  EXPECT_GE(Prefill(Plan("maskkv-pool", 10), pooled, 300).kept_mass(), best);
}

TEST_F(PoliciesTest, NeedNoPromptAndTakeAnyBudget) {
  for (const std::string& name : policy::PolicyNames()) {
    for (const std::int32_t tokens : {0, 1, 5}) {
      SCOPED_TRACE(name);
      HeapKvEntry entry;
      const PrefillResult result = Prefill(Plan(name, 7), entry, tokens, 1);
      EXPECT_EQ(result.pairs(), tokens * config().layers * config().kv_heads);
      EXPECT_DOUBLE_EQ(result.kept_mass(), 1);
      entry.CheckInvariants();
    }
  }
}

TEST_F(PoliciesTest, FollowAndPartsAreInverse) {
  for (const std::string& name : policy::PolicyNames()) {
    EXPECT_EQ(policy::PolicyName(Plan(name, 1).Parts()), name);
  }
  EXPECT_EQ(policy::PolicyName(EvictionPlan{}.Parts()), "maskkv");
  EXPECT_EQ(Plan("random", 1).selection, Selection::kRandom);
  EXPECT_EQ(Plan("full", 1).selection, Selection::kFull);
  EXPECT_EQ(policy::PolicyName(Plan("random/pyramid/uniform", 1).Parts()),
            "random/pyramid/uniform");
}

TEST_F(PoliciesTest, PlansThatDoNotGoTogetherAreRefused) {
  const auto validate = [&](const EvictionPlan& plan) {
    return Validate(plan, config().layers, config().kv_heads);
  };
  EvictionPlan plan = Plan("squeeze", 4);
  plan.importance.clear();
  EXPECT_THAT(validate(plan), StatusIs(kInvalid, HasSubstr("importance")));
  plan = Plan("snapkv", 4);
  plan.coverage = 0.5;
  EXPECT_THAT(validate(plan), StatusIs(kInvalid, HasSubstr("voters")));
  plan = Plan("maskkv-pool", 4);
  plan.head_rule = HeadRule::kUniform;
  EXPECT_THAT(validate(plan), StatusIs(kInvalid, HasSubstr("layers pool")));
  plan = Plan("streaming", 4);
  plan.head_rule = HeadRule::kAdaKv;
  EXPECT_THAT(validate(plan), StatusIs(kInvalid, HasSubstr("recent")));
  plan = Plan("maskkv", 4);
  plan.voters = Voters::kFull;
  EXPECT_THAT(validate(plan), StatusIs(kInvalid, HasSubstr("full")));
}

// Bit for bit, whatever the threads.
TEST_F(PoliciesTest, EntriesDoNotDependOnTheThreads) {
  class One : public PoliciesTest {
   public:
    One() : PoliciesTest(1) {}
    void TestBody() override {}
    using PoliciesTest::Plan;
    using PoliciesTest::Prefill;
  } one;
  for (const char* name : {"maskkv-pool", "adakv", "all-voting", "maskkv-back"}) {
    SCOPED_TRACE(name);
    HeapKvEntry with_two, with_one;
    const PrefillResult left = Prefill(Plan(name, 9), with_two, 300);
    const PrefillResult right = one.Prefill(one.Plan(name, 9), with_one, 300);
    for (std::int64_t layer = 0; layer < config().layers; ++layer) {
      const auto l = static_cast<std::size_t>(layer);
      EXPECT_EQ(left.layers[l].pairs, right.layers[l].pairs);
      EXPECT_EQ(left.layers[l].kept_mass, right.layers[l].kept_mass);
      EXPECT_EQ(left.layers[l].preference, right.layers[l].preference);
      for (std::int64_t head = 0; head < config().kv_heads; ++head) {
        EXPECT_TRUE(
            std::ranges::equal(with_two.Positions(layer, head), with_one.Positions(layer, head)));
      }
    }
  }
}

}  // namespace
}  // namespace maskkv::engine::policies_test
