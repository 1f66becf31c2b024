// SPDX-License-Identifier: Apache-2.0
//
// Several entries of one forward: each is what its plan alone makes of the prompt, bit for bit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <deque>

#include "core/engine/heap_kv.h"
#include "core/engine/prefill.h"
#include "core/engine/tile_rows.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/core/engine/test_model.h"

namespace maskkv::engine::prefill_cuts_test {
namespace {

using ::maskkv::testing::IsOk;
using ::maskkv::testing::StatusIs;
using ::testing::HasSubstr;

constexpr std::int64_t kPrompt = 40;
constexpr std::int64_t kRows = 48;

class PrefillCutsTest : public ::testing::Test {
 protected:
  PrefillCutsTest()
      : model_(std::string(MASKKV_SOURCE_DIR) + "/tests/data/golden/checkpoints/deep",
               kernels::DType::kF32, 2, 700) {
    std::vector<std::int32_t> prompt;
    for (std::int32_t i = 0; i < kPrompt; ++i) prompt.push_back((11 * i) % 47);
    rows_ = PromptThenMasks(prompt, kRows - kPrompt, config());
    forward_.rows = rows_;
  }
  const model::ModelConfig& config() const { return model_.weights.config(); }

  // Every selection and rule. The online plan, which holds all layers, is the first one.
  std::vector<EvictionPlan> Plans() const {
    std::vector<EvictionPlan> plans(8);
    const std::vector<double> importance = Importance();
    for (EvictionPlan& plan : plans) {
      plan.budget = 10;
      plan.layer_rule = LayerRule::kUniform;
    }
    const auto layers = static_cast<std::size_t>(config().layers);
    plans[0].layer_rule = LayerRule::kOnline;
    plans[1].layer_rule = LayerRule::kOffline;
    plans[2].layer_rule = LayerRule::kWeights;
    for (std::size_t layer = 0; layer < layers; ++layer) {
      plans[2].layer_weights.push_back(static_cast<double>(layer + 1));
    }
    plans[1].importance = importance;
    plans[3].alpha = 0.6;
    plans[3].budget = 3;
    plans[4].coverage = 0.5;
    plans[5].selection = Selection::kRandom;
    plans[6].selection = Selection::kRandom;
    plans[6].random_seed = 5;
    plans[7].selection = Selection::kFull;
    // The others by name; two budgets, so that windows differ.
    for (const char* name :
         {"maskkv-front", "maskkv-second", "maskkv-third", "maskkv-back", "prompt-voting",
          "all-voting", "snapkv", "pyramidkv", "squeeze", "adakv", "streaming", "maskkv-no-heads",
          "maskkv-pool", "maskkv-head-pool", "prompt/pool/pool", "window/online/preference",
          "random/pyramid/uniform"}) {
      for (const std::int64_t budget : {3, 12}) {
        EvictionPlan& plan = plans.emplace_back();
        const auto parts = policy::ParsePolicy(name);
        EXPECT_TRUE(parts.ok()) << parts.status();
        if (parts.ok()) plan.Follow(*parts);
        plan.budget = budget;
        plan.random_seed = 9;
        plan.importance = importance;
      }
    }
    return plans;
  }

  std::vector<double> Importance() const {
    std::vector<double> importance;
    for (std::int64_t layer = 0; layer < config().layers; ++layer) {
      importance.push_back(0.1 + 0.05 * static_cast<double>(layer % 3));
    }
    return importance;
  }

  void ExpectEqual(const HeapKvEntry& one, const HeapKvEntry& other) {
    one.CheckInvariants();
    ASSERT_EQ(one.shape(), other.shape());
    const auto item = static_cast<std::int64_t>(kernels::SizeOf(one.shape().dtype));
    for (std::int64_t layer = 0; layer < config().layers; ++layer) {
      for (std::int64_t head = 0; head < config().kv_heads; ++head) {
        const auto at = static_cast<std::size_t>(head);
        const kernels::CachedHead& left = one.Layer(layer)[at];
        const kernels::CachedHead& right = other.Layer(layer)[at];
        ASSERT_EQ(left.pairs, right.pairs);
        EXPECT_TRUE(std::ranges::equal(one.Positions(layer, head), other.Positions(layer, head)));
        const auto bytes = static_cast<std::size_t>(left.pairs * config().head_dim * item);
        if (bytes == 0) continue;  // then there may be no memory either
        EXPECT_EQ(std::memcmp(left.k, right.k, bytes), 0);
        EXPECT_EQ(std::memcmp(left.v, right.v, bytes), 0);
      }
    }
  }

  void ExpectAsAlone(const PrefillCut& cut, const PrefillResult& result) {
    PrefillRequest request;
    request.rows = rows_;
    request.plan = cut.plan;
    request.kv_dtype = cut.kv_dtype;
    HeapKvEntry alone;
    MASKKV_ASSERT_OK_AND_ASSIGN(const PrefillResult expected,
                                Prefiller(model_.transformer).Run(request, alone));
    ExpectEqual(*static_cast<const HeapKvEntry*>(cut.sink), alone);
    EXPECT_EQ(result.prompt_tokens, expected.prompt_tokens);
    EXPECT_EQ(result.masks, expected.masks);
    ASSERT_EQ(result.layers.size(), expected.layers.size());
    for (std::size_t layer = 0; layer < expected.layers.size(); ++layer) {
      EXPECT_EQ(result.layers[layer].pairs, expected.layers[layer].pairs);
      EXPECT_EQ(result.layers[layer].preference, expected.layers[layer].preference);
      EXPECT_EQ(result.layers[layer].kept_mass, expected.layers[layer].kept_mass);
      EXPECT_EQ(result.layers[layer].prompt_mass, expected.layers[layer].prompt_mass);
      EXPECT_EQ(result.layers[layer].importance, expected.layers[layer].importance);
    }
  }

  // Every policy is held to the same bytes.
  void ExpectTotal(const EvictionPlan& plan, const PrefillResult& result) {
    if (plan.coverage > 0) return;
    const std::int64_t heads = config().layers * config().kv_heads;
    EXPECT_EQ(result.pairs(), heads * plan.MaxPairsAHead(kPrompt))
        << policy::PolicyName(plan.Parts());
    EXPECT_GE(result.kept_mass(), 0);
    EXPECT_LE(result.kept_mass(), 1);
  }

  std::int64_t LayerBytes() const {
    return kRows * 2 * config().kv_heads * config().head_dim * std::int64_t{sizeof(float)};
  }

  TestModel model_;
  std::vector<Row> rows_;
  PrefillForward forward_;
};

TEST_F(PrefillCutsTest, EachEntryIsWhatItsPlanAloneMakes) {
  // With the online plan among them, and without.
  for (const std::size_t first : {0U, 1U}) {
    const std::vector<EvictionPlan> plans = Plans();
    std::deque<HeapKvEntry> entries;
    std::vector<PrefillCut> cuts;
    for (std::size_t i = first; i < plans.size(); ++i) {
      if (first > 0 && plans[i].HoldsAllLayers()) continue;
      const auto dtype = i % 3 == 0 ? kernels::DType::kBF16 : kernels::DType::kF32;
      cuts.push_back({plans[i], dtype, &entries.emplace_back()});
    }
    std::vector<std::int64_t> scored, done;
    forward_.on_scores = [&](std::int64_t layer, std::span<const float>) {
      scored.push_back(layer);
    };
    forward_.after_layer = [&](std::int64_t layers, std::int64_t) {
      done.push_back(layers);
      return absl::OkStatus();
    };
    MASKKV_ASSERT_OK_AND_ASSIGN(const std::vector<PrefillResult> results,
                                Prefiller(model_.transformer).RunCuts(forward_, cuts));
    ASSERT_EQ(results.size(), cuts.size());
    for (std::size_t i = 0; i < cuts.size(); ++i) {
      SCOPED_TRACE(first + i);
      ExpectAsAlone(cuts[i], results[i]);
      ExpectTotal(cuts[i].plan, results[i]);
      EXPECT_EQ(results[i].peak_full_kv_bytes, LayerBytes() * (first == 0 ? config().layers : 1));
    }
    EXPECT_EQ(std::ssize(scored), config().layers);
    EXPECT_TRUE(std::ranges::is_sorted(scored));
    EXPECT_EQ(std::ssize(done), config().layers * (first == 0 ? 2 : 1));
  }
}

// The plans' votes come from masks, from windows across borders of blocks, and from every row.
TEST_F(PrefillCutsTest, EntriesAreTheSameBitsHoweverTheForwardIsCutIntoTiles) {
  std::vector<std::int32_t> prompt;
  for (std::int32_t i = 0; i < 600; ++i) prompt.push_back((11 * i + i / 50) % 47);
  rows_ = PromptThenMasks(prompt, 40, config());
  forward_.rows = rows_;
  std::vector<EvictionPlan> plans = Plans();
  for (const bool late : {true, false}) {
    if (!late) std::erase_if(plans, [](const EvictionPlan& plan) { return plan.HoldsAllLayers(); });
    // All of them, and those alone of which no row of the prompt votes.
    for (const std::size_t count : {plans.size(), std::size_t{2}}) {
      const auto run = [&](std::int64_t tile_rows, std::deque<HeapKvEntry>& entries) {
        std::vector<PrefillCut> cuts;
        for (std::size_t i = 0; i < count; ++i) {
          cuts.push_back({plans[i], kernels::DType::kF32, &entries.emplace_back()});
        }
        forward_.tile_rows = tile_rows;
        std::int64_t tiles = 1;
        forward_.between_tiles = [&] {
          ++tiles;
          return absl::OkStatus();
        };
        EXPECT_THAT(Prefiller(model_.transformer).RunCuts(forward_, cuts), IsOk());
        return tiles;
      };
      std::deque<HeapKvEntry> whole;
      const std::int64_t blocks = run(transformer::kRowBlock, whole);
      EXPECT_GE(blocks, config().layers * (3 + 3 + 1)) << "keys and values, rows, eviction";
      for (const std::int64_t tile_rows : {96, 31}) {
        std::deque<HeapKvEntry> entries;
        // Where every row of the prompt votes only the 40 masks are cut.
        const std::int64_t tiles = run(tile_rows, entries);
        EXPECT_EQ(tiles > blocks, count == 2 || tile_rows < 40) << tiles;
        for (std::size_t i = 0; i < count; ++i) {
          SCOPED_TRACE(i);
          ExpectEqual(entries[i], whole[i]);
        }
      }
    }
  }
}

TEST_F(PrefillCutsTest, WhatIsSaidBetweenTilesStopsTheForward) {
  std::int64_t tiles = 0;
  forward_.between_tiles = [&] {
    return ++tiles == 4 ? absl::CancelledError("stop") : absl::OkStatus();
  };
  HeapKvEntry entry;
  const PrefillCut cut{Plans()[3], kernels::DType::kF32, &entry};
  EXPECT_THAT(Prefiller(model_.transformer).RunCuts(forward_, {&cut, 1}),
              StatusIs(absl::StatusCode::kCancelled, HasSubstr("stop")));
  EXPECT_EQ(tiles, 4);
  EXPECT_EQ(entry.Finish().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(PrefillCutsTest, TilesOfLongPromptsAreOfFewerRows) {
  EXPECT_EQ(TileRows(0), transformer::kRowBlock);
  EXPECT_EQ(TileRows(8192), transformer::kRowBlock);
  EXPECT_EQ(TileRows(8193), 224);
  EXPECT_EQ(TileRows(32768), 64);
  EXPECT_EQ(TileRows(std::int64_t{1} << 40), 32);
}

TEST_F(PrefillCutsTest, OneBadPlanStopsAllBeforeAnySinkBegins) {
  HeapKvEntry good, bad;
  std::vector<PrefillCut> cuts(2);
  cuts[0] = {Plans()[3], kernels::DType::kF32, &good};
  cuts[1] = {Plans()[3], kernels::DType::kF32, &bad};
  cuts[1].plan.alpha = 2;
  EXPECT_THAT(Prefiller(model_.transformer).RunCuts(forward_, cuts),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("alpha")));
  cuts[1].plan.alpha = 0.5;
  EXPECT_THAT(Prefiller(model_.transformer).RunCuts(forward_, cuts), IsOk());
}

TEST_F(PrefillCutsTest, ASinkWithoutRoomStopsTheForward) {
  HeapKvEntry good, used;
  std::vector<PrefillCut> cuts(2);
  cuts[0] = {Plans()[3], kernels::DType::kF32, &good};
  cuts[1] = {Plans()[3], kernels::DType::kF32, &used};
  ASSERT_THAT(used.Begin({1, 1, 1, kernels::DType::kF32}, 1), IsOk());
  bool ran = false;
  forward_.after_layer = [&](std::int64_t, std::int64_t) {
    ran = true;
    return absl::OkStatus();
  };
  EXPECT_THAT(Prefiller(model_.transformer).RunCuts(forward_, cuts),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("begun")));
  EXPECT_FALSE(ran);
}

TEST_F(PrefillCutsTest, NoCutsIsAForwardAlone) {
  std::int64_t layers = 0;
  forward_.on_scores = [&](std::int64_t, std::span<const float> scores) {
    ++layers;
    EXPECT_EQ(std::ssize(scores), config().kv_heads * kRows);
  };
  MASKKV_ASSERT_OK_AND_ASSIGN(const std::vector<PrefillResult> results,
                              Prefiller(model_.transformer).RunCuts(forward_, {}));
  EXPECT_TRUE(results.empty());
  EXPECT_EQ(layers, config().layers);
}

}  // namespace
}  // namespace maskkv::engine::prefill_cuts_test
