// SPDX-License-Identifier: Apache-2.0
#include "core/engine/prefill.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "core/engine/decode.h"
#include "core/engine/heap_kv.h"
#include "tests/unit/core/engine/test_model.h"

namespace maskkv::engine::prefill_test {
namespace {

using ::testing::HasSubstr;

class PrefillTest : public ::testing::Test {
 protected:
  PrefillTest()
      : model_(std::string(MASKKV_SOURCE_DIR) + "/tests/data/golden/checkpoints/gqa",
               kernels::DType::kF32, 2, 400) {
    for (std::int32_t i = 0; i < 40; ++i) prompt_.push_back(i % 50);
    rows_ = PromptThenMasks(prompt_, 8, config());
  }
  const model::ModelConfig& config() const { return model_.weights.config(); }

  EvictionPlan Plan(Selection selection, std::int64_t budget) const {
    EvictionPlan plan;
    plan.selection = selection;
    plan.layer_rule = LayerRule::kUniform;
    plan.budget = budget;
    return plan;
  }

  absl::StatusOr<PrefillResult> Run(const EvictionPlan& plan, KvSink& sink) {
    PrefillRequest request;
    request.rows = rows_;
    request.plan = plan;
    return Prefiller(model_.transformer).Run(request, sink);
  }

  void ExpectRefused(const EvictionPlan& plan, const std::string& part) {
    HeapKvEntry entry;
    const absl::Status status = Run(plan, entry).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
  }

  TestModel model_;
  std::vector<std::int32_t> prompt_;
  std::vector<Row> rows_;
};

TEST_F(PrefillTest, OfflineHoldsOneLayersKeysAndValuesOnlineHoldsAll) {
  EvictionPlan plan = Plan(Selection::kMaskKv, 4);
  HeapKvEntry uniform, online;
  const auto offline_result = Run(plan, uniform);
  plan.layer_rule = LayerRule::kOnline;
  const auto online_result = Run(plan, online);
  ASSERT_TRUE(offline_result.ok() && online_result.ok());
  const std::int64_t layer_bytes =
      48 * 2 * config().kv_heads * config().head_dim * std::int64_t{sizeof(float)};
  EXPECT_EQ(offline_result->peak_full_kv_bytes, layer_bytes);
  EXPECT_EQ(online_result->peak_full_kv_bytes, config().layers * layer_bytes);
}

TEST_F(PrefillTest, KeepsExactlyTheBudgetOrEverythingThereIs) {
  for (const std::int64_t budget : {1, 3, 39, 40, 41, 1000000}) {
    for (const Selection selection : {Selection::kMaskKv, Selection::kRandom}) {
      HeapKvEntry entry;
      const auto result = Run(Plan(selection, budget), entry);
      ASSERT_TRUE(result.ok()) << result.status();
      EXPECT_EQ(result->pairs(),
                std::min<std::int64_t>(budget, 40) * config().layers * config().kv_heads);
      EXPECT_LE(result->kept_mass(), 1 + 1e-12);
      if (budget >= 40) {
        EXPECT_NEAR(result->kept_mass(), 1, 1e-12);
      }
    }
  }
}

TEST_F(PrefillTest, RandomSelectionIsAFunctionOfItsSeed) {
  EvictionPlan plan = Plan(Selection::kRandom, 5);
  std::set<std::vector<std::int32_t>> seen;
  for (const std::uint64_t seed : {1U, 1U, 2U}) {
    plan.random_seed = seed;
    HeapKvEntry entry;
    ASSERT_TRUE(Run(plan, entry).ok());
    const auto kept = entry.Positions(0, 0);
    seen.emplace(kept.begin(), kept.end());
  }
  EXPECT_EQ(seen.size(), 2U);
}

TEST_F(PrefillTest, AnEmptyPromptGivesAnEmptyEntryThatDecodes) {
  rows_ = PromptThenMasks({}, 4, config());
  auto entry = std::make_shared<HeapKvEntry>();
  const auto result = Run(Plan(Selection::kMaskKv, 4), *entry);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->pairs(), 0);
  EXPECT_EQ(entry->bytes(), 0);
  DecodeRequest request;
  request.params.gen_length = request.params.block_length = request.params.steps = 4;
  request.cache = entry;
  Decoder decoder(model_.transformer);
  ASSERT_TRUE(decoder.Add(std::move(request)).ok());
  while (decoder.running() > 0) ASSERT_TRUE(decoder.Step().front().status.ok());
}

TEST_F(PrefillTest, StopsAtALayerWhenTheCallerSaysSoAndLeavesTheSinkUnfinished) {
  PrefillRequest request;
  request.rows = rows_;
  request.plan = Plan(Selection::kMaskKv, 4);
  std::vector<std::int64_t> done;
  request.after_layer = [&](std::int64_t layers_done, std::int64_t layers) {
    EXPECT_EQ(layers, config().layers);
    done.push_back(layers_done);
    return layers_done == 2 ? absl::CancelledError("stop") : absl::OkStatus();
  };
  HeapKvEntry entry;
  EXPECT_EQ(Prefiller(model_.transformer).Run(request, entry).status().code(),
            absl::StatusCode::kCancelled);
  EXPECT_THAT(done, ::testing::ElementsAre(1, 2));
  EXPECT_EQ(entry.Finish().code(), absl::StatusCode::kFailedPrecondition);
}

// A sink that runs out of room.
class FullSink final : public KvSink {
 public:
  MemoryKind memory() const override { return MemoryKind::kHost; }
  absl::Status Begin(const EntryShape&, std::int64_t) override { return absl::OkStatus(); }
  absl::StatusOr<std::span<const HeadExtent>> AllocateLayer(
      std::int64_t, std::span<const std::int64_t>) override {
    return absl::ResourceExhaustedError("no room");
  }
  absl::Status Finish() override {
    ADD_FAILURE() << "a sink without room was finished";
    return absl::OkStatus();
  }
};

TEST_F(PrefillTest, PassesTheSinksErrorOn) {
  FullSink sink;
  EXPECT_EQ(Run(Plan(Selection::kMaskKv, 4), sink).status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST_F(PrefillTest, RefusesPlansThatMeanNothing) {
  EvictionPlan plan = Plan(Selection::kMaskKv, 0);
  ExpectRefused(plan, "budget: expected an integer >= 1, found 0");
  plan = Plan(Selection::kMaskKv, 4);
  plan.alpha = 1.5;
  ExpectRefused(plan, "alpha");
  plan = Plan(Selection::kMaskKv, 4);
  plan.beta = -0.1;
  ExpectRefused(plan, "beta");
  plan = Plan(Selection::kMaskKv, 4);
  plan.layer_rule = LayerRule::kOffline;
  plan.importance = {1.0};
  ExpectRefused(plan, "importance: expected 3 layers from a profile, found 1");
}

TEST_F(PrefillTest, RefusesRowsThatAreNotAPromptBeforeMasks) {
  const EvictionPlan plan = Plan(Selection::kMaskKv, 4);
  const std::vector<Row> good = rows_;
  rows_[3].token = -1;
  ExpectRefused(plan, "row 3");
  rows_ = good;
  rows_[3].token = static_cast<std::int32_t>(config().vocab_rows);
  ExpectRefused(plan, "row 3");
  rows_ = good;
  rows_[3].position = 1 << 20;
  ExpectRefused(plan, "row 3: expected a position");
  rows_ = good;
  rows_[3].position = 0;
  ExpectRefused(plan, "row 3: expected prompt positions to ascend");
  rows_ = good;
  std::swap(rows_[3], rows_[44]);
  ExpectRefused(plan, "expected prompt rows before response rows");
  rows_ = good;
  rows_.resize(40);
  ExpectRefused(plan, "expected at least one response row that votes, found none");
}

TEST_F(PrefillTest, PromptsWithTheMaskTokenOrUnknownIdsAreRefusedByPosition) {
  std::vector<std::int32_t> prompt = prompt_;
  prompt[7] = config().mask_id;
  EXPECT_THAT(std::string(ValidatePrompt(config(), prompt, 8, 400).message()),
              HasSubstr("position 7: expected no mask token"));
  prompt[7] = -5;
  EXPECT_THAT(std::string(ValidatePrompt(config(), prompt, 8, 400).message()),
              HasSubstr("position 7"));
  EXPECT_THAT(std::string(ValidatePrompt(config(), prompt_, 8, 47).message()),
              HasSubstr("expected at most 47 positions"));
  EXPECT_FALSE(ValidatePrompt(config(), prompt_, 0, 400).ok());
  EXPECT_TRUE(ValidatePrompt(config(), prompt_, 8, 48).ok());
}

}  // namespace
}  // namespace maskkv::engine::prefill_test
