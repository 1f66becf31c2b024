// SPDX-License-Identifier: Apache-2.0
#include "core/engine/quality.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/engine/decode.h"
#include "core/engine/prefill.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/core/engine/test_model.h"

namespace maskkv::engine::quality_test {
namespace {

using ::maskkv::testing::IsOk;
using ::maskkv::testing::StatusIs;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TEST(CompareLogits, IsTheDivergenceOfTheTwoSoftmaxes) {
  // p = (3/4, 1/4), q = (1/4, 3/4): KL = (3/4 - 1/4) ln 3.
  const float three = std::log(3.0F);
  const std::vector<float> p{three, 100, 0}, q{0, -7, three};
  const LogitComparison found = CompareLogits(p, q, /*forbidden=*/1);
  // log 3 is rounded to f32: its error, 2^-24 ln 3, enters twice.
  EXPECT_NEAR(found.divergence, 0.5 * std::log(3.0), 4 * std::ldexp(1.0, -24));
  EXPECT_FALSE(found.agrees);
  EXPECT_EQ(CompareLogits(p, p, 1).divergence, 0);
  EXPECT_TRUE(CompareLogits(p, p, 1).agrees);
  EXPECT_FALSE(CompareLogits(p, q, 2).agrees);  // 1 leads p, 0 leads q
}

TEST(CompareLogits, ShiftsOfARowChangeNothingAndNothingOverflows) {
  const std::vector<float> p{1000, 998, -1e30F}, q{-1000, -1002, -1001};
  const LogitComparison found = CompareLogits(p, q, -1);
  EXPECT_TRUE(found.agrees);
  // q gives 1 / (1 + e^-2 + e^-1) where p gives 1 / (1 + e^-2); the third id has no weight in p.
  const double expected = std::log((1 + std::exp(-2.0) + std::exp(-1.0)) / (1 + std::exp(-2.0)));
  EXPECT_NEAR(found.divergence, expected, 1e-12);
  EXPECT_FALSE(std::isfinite(CompareLogits(p, std::vector<float>{0, kNan, 0}, -1).divergence));
}

class QualityTest : public ::testing::TestWithParam<const char*> {
 protected:
  QualityTest()
      : model_(std::string(MASKKV_SOURCE_DIR) + "/tests/data/golden/checkpoints/" + GetParam(),
               kernels::DType::kF32, 2, 100) {
    for (std::int32_t i = 0; i < 40; ++i) prompt_.push_back((11 * i) % 47);
    params_.gen_length = params_.steps = 12;
    params_.block_length = 6;
    params_.ignore_eos = true;
    params_.stop_ids = {model_.weights.config().eos_id};
  }
  std::vector<EvictionPlan> Plans(std::vector<std::int64_t> budgets) const {
    std::vector<EvictionPlan> plans;
    for (const std::int64_t budget : budgets) {
      plans.emplace_back().budget = budget;
      plans.back().layer_rule = LayerRule::kUniform;
    }
    return plans;
  }

  TestModel model_;
  std::vector<std::int32_t> prompt_;
  GenerateParams params_;
};

TEST_P(QualityTest, EverythingKeptIsTheReferenceAndLittleIsNot) {
  QualityMeter meter(model_.transformer, Plans({1, 4, 40}), params_, kernels::DType::kF32);
  for (int i = 0; i < 3; ++i) {
    ASSERT_THAT(meter.Add(prompt_, [] { return absl::OkStatus(); }), IsOk());
    prompt_.erase(prompt_.begin(), prompt_.begin() + 3);
    meter.CheckInvariants();
  }
  const std::vector<budget::QualityPoint> points = meter.Points();
  ASSERT_EQ(points.size(), 3U);
  // Two blocks of six masks, one decided a step: 2 * (6 + 5 + 4 + 3 + 2 + 1) predictions a prompt.
  for (const budget::QualityPoint& point : points) EXPECT_EQ(point.predictions, 3 * 42);
  EXPECT_EQ(points[2].agreed, points[2].predictions);
  EXPECT_EQ(points[2].divergence, 0);
  EXPECT_EQ(points[2].equal_answers, 3);
  EXPECT_DOUBLE_EQ(points[2].kept_mass, 1);
  EXPECT_GT(points[0].divergence, 0);
  EXPECT_GT(points[1].divergence, 0);
  EXPECT_LT(points[0].kept_mass, points[1].kept_mass);
  EXPECT_LT(points[0].agreed, points[0].predictions);
}

// What the Decoder commits follows from the logits that are measured.
TEST_P(QualityTest, CanvasLogitsAreThoseOfTheDecoder) {
  const model::ModelConfig& config = model_.weights.config();
  const std::vector<Row> rows = PromptThenMasks(prompt_, params_.gen_length, config);
  PrefillRequest prefill;
  prefill.rows = rows;
  prefill.plan = Plans({4}).front();
  auto entry = std::make_shared<HeapKvEntry>();
  ASSERT_TRUE(Prefiller(model_.transformer).Run(prefill, *entry).ok());
  DecodeRequest request;
  request.prompt = RecomputedTail(config, prompt_);
  request.prompt_tokens = 40;
  request.params = params_;
  request.cache = entry;
  Decoder decoder(model_.transformer);
  const auto id = decoder.Add(request);
  ASSERT_TRUE(id.ok()) << id.status();
  CanvasLogits forward(model_.transformer);
  const auto vocabulary = static_cast<std::size_t>(config.vocab_rows);
  for (int step = 0; step < 12; ++step) {
    const Canvas& canvas = *decoder.Find(*id);
    const std::vector<std::int64_t> candidates(canvas.candidates().begin(),
                                               canvas.candidates().end());
    const std::span<const float> logits =
        forward.Run({entry.get(), request.prompt, 40, canvas.tokens(), candidates});
    const std::vector<StepEvent> events = decoder.Step();
    ASSERT_EQ(events.size(), 1U);
    for (const Prediction& committed : events[0].committed) {
      const auto row = static_cast<std::size_t>(std::ranges::find(candidates, committed.position) -
                                                candidates.begin());
      double sum = 0, best = -1e30;
      for (std::size_t i = 0; i < vocabulary; ++i) {
        if (std::cmp_equal(i, config.mask_id)) continue;
        best = std::max(best, static_cast<double>(logits[row * vocabulary + i]));
      }
      for (std::size_t i = 0; i < vocabulary; ++i) {
        if (!std::cmp_equal(i, config.mask_id))
          sum += std::exp(logits[row * vocabulary + i] - best);
      }
      EXPECT_EQ(logits[row * vocabulary + static_cast<std::size_t>(committed.token)], best);
      EXPECT_NEAR(committed.confidence, 1 / sum, 1e-6) << "step " << step;
    }
  }
}

TEST_P(QualityTest, WhatFailsLeavesTheCountsAsTheyWere) {
  QualityMeter meter(model_.transformer, Plans({2}), params_, kernels::DType::kF32);
  ASSERT_THAT(meter.Add(prompt_, [] { return absl::OkStatus(); }), IsOk());
  const std::vector<budget::QualityPoint> before = meter.Points();
  int left = 3;
  EXPECT_THAT(
      meter.Add(prompt_,
                [&] { return --left > 0 ? absl::OkStatus() : absl::CancelledError("stopped"); }),
      StatusIs(absl::StatusCode::kCancelled, ::testing::HasSubstr("stopped")));
  prompt_[0] = -1;
  EXPECT_THAT(meter.Add(prompt_, [] { return absl::OkStatus(); }),
              StatusIs(absl::StatusCode::kInvalidArgument, ::testing::HasSubstr("position 0")));
  EXPECT_EQ(meter.prompts(), 1);
  EXPECT_EQ(meter.Points(), before);
  meter.CheckInvariants();
}

INSTANTIATE_TEST_SUITE_P(Families, QualityTest, ::testing::Values("deep", "dream"));

}  // namespace
}  // namespace maskkv::engine::quality_test
