// SPDX-License-Identifier: Apache-2.0
//
// Prefill by weights of layers, base rates of heads and coverage.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "core/engine/heap_kv.h"
#include "core/engine/prefill.h"
#include "core/policy/coverage.h"
#include "core/policy/layer_weights.h"
#include "tests/unit/core/engine/test_model.h"

namespace maskkv::engine::prefill_plan_test {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

constexpr std::int64_t kPrompt = 40;
constexpr std::int64_t kRows = 48;

using Kept = std::vector<std::vector<std::int32_t>>;  // of each head of each layer

class PrefillPlanTest : public ::testing::Test {
 protected:
  PrefillPlanTest()
      : model_(std::string(MASKKV_SOURCE_DIR) + "/tests/data/golden/checkpoints/deep",
               kernels::DType::kF32, 2, 100) {
    std::vector<std::int32_t> prompt;
    for (std::int32_t i = 0; i < kPrompt; ++i) prompt.push_back((11 * i) % 47);
    rows_ = PromptThenMasks(prompt, kRows - kPrompt, config());
  }
  const model::ModelConfig& config() const { return model_.weights.config(); }
  std::size_t layers() const { return static_cast<std::size_t>(config().layers); }
  std::size_t heads() const { return static_cast<std::size_t>(config().kv_heads); }

  // A plan that keeps a quarter.
  EvictionPlan Plan(LayerRule rule) const {
    EvictionPlan plan;
    plan.layer_rule = rule;
    plan.budget = 10;
    return plan;
  }

  PrefillResult Run(const EvictionPlan& plan) {
    PrefillRequest request;
    request.rows = rows_;
    request.plan = plan;
    scores_.clear();
    request.on_scores = [this](std::int64_t, std::span<const float> scores) {
      scores_.emplace_back(scores.begin(), scores.end());
    };
    HeapKvEntry entry;
    const auto result = Prefiller(model_.transformer).Run(request, entry);
    EXPECT_TRUE(result.ok()) << result.status();
    kept_.clear();
    if (!result.ok()) return {};
    for (std::int64_t layer = 0; layer < config().layers; ++layer) {
      for (std::int64_t head = 0; head < config().kv_heads; ++head) {
        const auto positions = entry.Positions(layer, head);
        kept_.emplace_back(positions.begin(), positions.end());
      }
    }
    return *result;
  }

  void ExpectRefused(const EvictionPlan& plan, const std::string& part) {
    PrefillRequest request;
    request.rows = rows_;
    request.plan = plan;
    HeapKvEntry entry;
    const absl::Status status = Prefiller(model_.transformer).Run(request, entry).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
  }

  std::int64_t LayerBytes() const {
    return kRows * 2 * config().kv_heads * config().head_dim * std::int64_t{sizeof(float)};
  }

  TestModel model_;
  std::vector<Row> rows_;
  std::vector<std::vector<float>> scores_;  // of the last run's layers
  Kept kept_;                               // of the last run
};

TEST_F(PrefillPlanTest, WeightsGiveEachLayerItsShare) {
  EvictionPlan plan = Plan(LayerRule::kWeights);
  for (std::size_t layer = 0; layer < layers(); ++layer) {
    plan.layer_weights.push_back(static_cast<double>(layer * layer));
  }
  const PrefillResult result = Run(plan);
  const auto budgets = policy::AllocateLayersByWeight(plan.layer_weights, 10, plan.beta, kPrompt);
  ASSERT_TRUE(budgets.ok());
  for (std::size_t layer = 0; layer < layers(); ++layer) {
    const auto& pairs = result.layers[layer].pairs;
    EXPECT_EQ(std::accumulate(pairs.begin(), pairs.end(), std::int64_t{0}),
              (*budgets)[layer] * config().kv_heads);
  }
  EXPECT_EQ(result.pairs(), 10 * config().layers * config().kv_heads);
  EXPECT_EQ(result.peak_full_kv_bytes, LayerBytes());
}

TEST_F(PrefillPlanTest, EqualWeightsKeepWhatTheUniformRuleKeeps) {
  Run(Plan(LayerRule::kUniform));
  const Kept uniform = kept_;
  EvictionPlan plan = Plan(LayerRule::kWeights);
  plan.layer_weights.assign(layers(), 0.3);
  Run(plan);
  EXPECT_EQ(kept_, uniform);
}

TEST_F(PrefillPlanTest, RatesOfHeadsTakeTheirOwnLayersPart) {
  EvictionPlan plan = Plan(LayerRule::kUniform);
  Run(plan);
  const Kept by_alpha = kept_;
  plan.head_rates.assign(layers() * heads(), plan.alpha);
  plan.alpha = 0.7;  // not used
  Run(plan);
  EXPECT_EQ(kept_, by_alpha);
  // Rates of one in one layer: its heads keep the same number, the others what they kept.
  for (std::size_t head = 0; head < heads(); ++head) plan.head_rates[3 * heads() + head] = 1;
  const PrefillResult result = Run(plan);
  EXPECT_THAT(result.layers[3].pairs, Each(10));
  for (std::size_t i = 0; i < kept_.size(); ++i) {
    if (i / heads() != 3) {
      EXPECT_EQ(kept_[i], by_alpha[i]) << i;
    }
  }
}

TEST_F(PrefillPlanTest, CoverageKeepsItsShareOfEveryLayerWithOneLayersMemory) {
  EvictionPlan plan = Plan(LayerRule::kOnline);  // not used
  plan.coverage = 0.8;
  const PrefillResult result = Run(plan);
  EXPECT_EQ(result.peak_full_kv_bytes, LayerBytes());
  for (std::size_t layer = 0; layer < layers(); ++layer) {
    const LayerReport& report = result.layers[layer];
    const double kept = std::accumulate(report.kept_mass.begin(), report.kept_mass.end(), 0.0);
    const double all = std::accumulate(report.prompt_mass.begin(), report.prompt_mass.end(), 0.0);
    EXPECT_GE(kept, 0.8 * all * (1 - 1e-12)) << "layer " << layer;
    EXPECT_LT(kept, 0.95 * all) << "layer " << layer;
    const auto expected = policy::SelectByCoverage(scores_[layer], kRows, kPrompt, 0.8, 0);
    ASSERT_TRUE(expected.ok());
    for (std::size_t head = 0; head < heads(); ++head) {
      EXPECT_EQ(kept_[layer * heads() + head], (*expected)[head]);
      EXPECT_EQ(report.pairs[head], std::ssize((*expected)[head]));
    }
  }
}

TEST_F(PrefillPlanTest, CoverageHoldsToItsBound) {
  EvictionPlan plan = Plan(LayerRule::kOffline);  // without importance: not used
  plan.coverage = 1;
  plan.max_budget = 7;
  EXPECT_EQ(Run(plan).pairs(), 7 * config().layers * config().kv_heads);
  plan.max_budget = 0;
  EXPECT_NEAR(Run(plan).kept_mass(), 1, 1e-12);
  rows_ = PromptThenMasks({}, 4, config());
  EXPECT_EQ(Run(plan).pairs(), 0);
}

// Says what it was told.
class AskedSink final : public KvSink {
 public:
  MemoryKind memory() const override { return MemoryKind::kHost; }
  absl::Status Begin(const EntryShape&, std::int64_t max_pairs) override {
    max_pairs_ = max_pairs;
    return absl::CancelledError("enough");
  }
  absl::StatusOr<std::span<const HeadExtent>> AllocateLayer(
      std::int64_t, std::span<const std::int64_t>) override {
    return absl::InternalError("begun in vain");
  }
  absl::Status Finish() override { return absl::InternalError("begun in vain"); }

  std::int64_t max_pairs() const { return max_pairs_; }

 private:
  std::int64_t max_pairs_ = -1;
};

TEST_F(PrefillPlanTest, TheSinkIsToldTheMostThereCanBe) {
  PrefillRequest request;
  request.rows = rows_;
  const auto most = [&](double coverage, std::int64_t max_budget) {
    request.plan = Plan(LayerRule::kUniform);
    request.plan.coverage = coverage;
    request.plan.max_budget = max_budget;
    AskedSink sink;
    EXPECT_TRUE(absl::IsCancelled(Prefiller(model_.transformer).Run(request, sink).status()));
    return sink.max_pairs() / (config().layers * config().kv_heads);
  };
  EXPECT_EQ(most(0, 0), 10);
  EXPECT_EQ(most(0.5, 0), kPrompt);
  EXPECT_EQ(most(0.5, 12), 12);
  EXPECT_EQ(most(0.5, 1000), kPrompt);
}

TEST_F(PrefillPlanTest, EveryRuleCallsAfterEachLayerAndStopsWhereItIsTold) {
  for (const LayerRule rule : {LayerRule::kUniform, LayerRule::kOnline}) {
    const std::int64_t layers = config().layers;
    std::vector<std::int64_t> expected(this->layers());
    std::iota(expected.begin(), expected.end(), 1);
    if (rule == LayerRule::kOnline) expected.insert(expected.end(), this->layers(), layers);
    for (std::size_t stop = 1; stop <= expected.size() + 1; ++stop) {
      PrefillRequest request;
      request.rows = rows_;
      request.plan = Plan(rule);
      std::vector<std::int64_t> seen;
      request.after_layer = [&](std::int64_t done, std::int64_t of) {
        EXPECT_EQ(of, layers);
        seen.push_back(done);
        return seen.size() == stop ? absl::CancelledError("stop") : absl::OkStatus();
      };
      HeapKvEntry entry;
      const absl::Status status = Prefiller(model_.transformer).Run(request, entry).status();
      EXPECT_EQ(absl::IsCancelled(status), stop <= expected.size());
      EXPECT_EQ(seen.size(), std::min(stop, expected.size()));
      EXPECT_TRUE(std::equal(seen.begin(), seen.end(), expected.begin()));
    }
  }
}

TEST_F(PrefillPlanTest, RefusesNumbersThatMeanNothing) {
  EvictionPlan plan = Plan(LayerRule::kWeights);
  ExpectRefused(plan, "layer_weights: expected 8 layers, found 0");
  plan.layer_weights.assign(layers(), 0);
  ExpectRefused(plan, "layer_weights: expected a weight over zero");
  plan.layer_weights[2] = -1;
  ExpectRefused(plan, "layer_weights: layer 2: expected a finite number >= 0");
  plan.layer_weights[2] = 1;
  plan.head_rates.assign(3, 0.5);
  ExpectRefused(plan, "head_rates: expected 16 heads of all layers, found 3");
  plan.head_rates.assign(16, 0.5);
  plan.head_rates[5] = 1.5;
  ExpectRefused(plan, "head_rates: head 5: expected a number from 0 to 1");
  plan.head_rates[5] = 1;
  Run(plan);
  for (const double bad : {-0.5, 1.5, std::numeric_limits<double>::quiet_NaN()}) {
    plan.coverage = bad;
    ExpectRefused(plan, "coverage: expected 0 or a number over 0 and at most 1");
  }
  plan.coverage = 0.5;
  plan.max_budget = -1;
  ExpectRefused(plan, "max_budget: expected an integer >= 0, found -1");
  plan.layer_rule = static_cast<LayerRule>(9);
  plan.coverage = 0;
  ExpectRefused(plan, "layer_rule");
}

}  // namespace
}  // namespace maskkv::engine::prefill_plan_test
