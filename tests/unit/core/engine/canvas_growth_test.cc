// SPDX-License-Identifier: Apache-2.0
//
// A canvas that grows at its end.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <random>

#include "core/engine/canvas.h"
#include "tests/support/seed.h"

namespace maskkv::engine::canvas_growth_test {
namespace {

using ::testing::ElementsAre;

constexpr std::int32_t kMask = 99;
constexpr std::int32_t kEos = 7;

GenerateParams Params(std::int64_t max_gen_length) {
  GenerateParams params;
  params.gen_length = params.steps = 4;
  params.block_length = 2;
  params.stop_ids = {kEos, 8};
  params.growth = {.max_gen_length = max_gen_length, .by = 2, .window = 3};
  return params;
}

// Token and confidence for each candidate.
std::vector<Prediction> Predict(const Canvas& canvas, std::int32_t token, float confidence) {
  std::vector<Prediction> predictions;
  for (const std::int64_t position : canvas.candidates()) {
    predictions.push_back(
        {.position = position, .token = token, .confidence = confidence, .score = confidence});
  }
  return predictions;
}

TEST(CanvasGrowth, BeforeTheFirstCommitGoesOnUntilTheEndIsCertain) {
  Canvas canvas(Params(100), kMask);
  EXPECT_TRUE(canvas.watches_end());
  EXPECT_EQ(canvas.watched_from(), 1);
  EXPECT_TRUE(canvas.GrowInstead(0.49));
  EXPECT_EQ(canvas.length(), 6);
  EXPECT_EQ(canvas.watched_from(), 3);
  EXPECT_EQ(canvas.step(), 0);
  EXPECT_FALSE(canvas.GrowInstead(0.5));
  canvas.Commit(Predict(canvas, 1, 0.9F), 0.5);
  EXPECT_FALSE(canvas.GrowInstead(0)) << "it is settled";
  EXPECT_EQ(canvas.length(), 6);
}

TEST(CanvasGrowth, EndsAtTheLimit) {
  GenerateParams params = Params(6);
  params.growth.by = 4;
  Canvas canvas(params, kMask);
  EXPECT_TRUE(canvas.GrowInstead(0));
  EXPECT_EQ(canvas.length(), 6);
  EXPECT_FALSE(canvas.watches_end());
  EXPECT_FALSE(canvas.GrowInstead(0));
}

TEST(CanvasGrowth, TheWindowIsTheCanvasWhereThatIsShorter) {
  GenerateParams params = Params(100);
  params.growth.window = 32;
  Canvas canvas(params, kMask);
  EXPECT_EQ(canvas.watched_from(), 0);
  EXPECT_DOUBLE_EQ(canvas.EndCertainty(std::vector<double>{0.5, 0.25, 0.25, 1}), 0.5);
  canvas.Commit(Predict(canvas, 1, 0.9F), 1);
  EXPECT_DOUBLE_EQ(canvas.EndCertainty(std::vector<double>{0.5, 1, 0.5}), 0.5)
      << "a decided token is no end";
}

TEST(CanvasGrowth, WhileDecodingNeedsAnUncertainEndAndAnUncertainMask) {
  const auto length_after = [](double certainty, float confidence) {
    Canvas canvas(Params(100), kMask);
    canvas.Commit(Predict(canvas, 1, confidence), certainty);
    canvas.CheckInvariants();
    return canvas.length();
  };
  EXPECT_EQ(length_after(0.89, 0.09F), 6);
  EXPECT_EQ(length_after(0.9, 0.09F), 4);
  EXPECT_EQ(length_after(0.89, 0.11F), 4);
}

TEST(CanvasGrowth, ACertaintyOfAMaskThatWasCommittedDoesNotCount) {
  GenerateParams params = Params(100);
  params.steps = 2;  // a block a step
  Canvas canvas(params, kMask);
  canvas.Commit(Predict(canvas, 1, 0.01F), 0);
  EXPECT_EQ(canvas.length(), 4);
}

TEST(CanvasGrowth, AFullCanvasWithoutAnEndGoesOn) {
  Canvas canvas(Params(8), kMask);
  while (!canvas.finished()) {
    canvas.Commit(Predict(canvas, 1, 0.9F), 1);
    canvas.CheckInvariants();
  }
  EXPECT_EQ(canvas.length(), 8);
  EXPECT_EQ(canvas.finish_reason(), FinishReason::kLength);
  EXPECT_EQ(canvas.Answer().size(), 8U);
  EXPECT_EQ(canvas.step(), 8) << "a step a mask, as in the first blocks";
}

TEST(CanvasGrowth, NothingGrowsBehindAnEnd) {
  Canvas canvas(Params(100), kMask);
  std::vector<Prediction> predictions = Predict(canvas, 1, 0.05F);
  predictions[1].token = 8;  // any stop id, though a mask lies before it
  predictions[1].score = 1;
  canvas.Commit(predictions, 0);
  EXPECT_FALSE(canvas.finished());
  EXPECT_EQ(canvas.length(), 4);
  EXPECT_FALSE(canvas.watches_end());
  canvas.Commit(Predict(canvas, 1, 0.05F), 0);
  EXPECT_EQ(canvas.finish_reason(), FinishReason::kStop);
  EXPECT_EQ(canvas.length(), 4);
}

TEST(CanvasGrowth, AGrownCanvasStopsOnceEverythingBeforeTheFirstEndIsDecided) {
  Canvas canvas(Params(100), kMask);
  ASSERT_TRUE(canvas.GrowInstead(0));
  ASSERT_TRUE(canvas.GrowInstead(0));
  for (int i = 0; i < 4; ++i) canvas.Commit(Predict(canvas, 1, 0.9F), 1);
  canvas.Commit(Predict(canvas, kEos, 0.9F), 1);  // position 4 of 8
  EXPECT_EQ(canvas.finish_reason(), FinishReason::kStop);
  EXPECT_THAT(canvas.Answer(), ElementsAre(1, 1, 1, 1));
  EXPECT_TRUE(canvas.masked(5));
}

TEST(CanvasGrowth, WithoutALimitNothingIsWatched) {
  Canvas canvas(Params(0), kMask);
  EXPECT_FALSE(canvas.watches_end());
  EXPECT_FALSE(canvas.GrowInstead(0));
  canvas.Commit(Predict(canvas, 1, 0), 0);
  EXPECT_EQ(canvas.length(), 4);
}

TEST(CanvasGrowth, EveryRuleDecidesAGrowingCanvas) {
  std::mt19937_64 random(maskkv::testing::Seed());
  std::uniform_real_distribution<float> share(0, 1);
  for (const decoding::Rule rule : decoding::AllRules()) {
    for (int round = 0; round < 20; ++round) {
      const auto block = static_cast<std::int64_t>(1 + random() % 5);
      GenerateParams params;
      params.block_length = block;
      params.gen_length = block * static_cast<std::int64_t>(1 + random() % 3);
      params.steps = params.blocks() * static_cast<std::int64_t>(1 + random() % 6);
      params.rule.rule = rule;
      params.seed = random();
      params.stop_ids = {kEos};
      params.growth = {
          .max_gen_length = params.gen_length + block * static_cast<std::int64_t>(random() % 6),
          .by = block * static_cast<std::int64_t>(random() % 3),
          .window = static_cast<std::int64_t>(1 + random() % 9),
          .low_confidence = 0.5};
      Canvas canvas(params, kMask);
      for (int step = 0; !canvas.finished(); ++step) {
        ASSERT_LT(step, 1000) << decoding::Name(rule);
        if (!canvas.GrowInstead(static_cast<double>(share(random)))) {
          canvas.Commit(Predict(canvas, 5, share(random)), static_cast<double>(share(random)));
        }
        canvas.CheckInvariants();
      }
      EXPECT_EQ(canvas.length(), params.longest()) << "no end was decided";
      EXPECT_THAT(canvas.tokens(), ::testing::Each(5));
    }
  }
}

TEST(Growth, IsRefusedWithTheParametersName) {
  const auto refused = [](const auto& change, const char* name) {
    GenerateParams params = Params(8);
    ASSERT_TRUE(engine::Validate(params).ok());
    change(params);
    const absl::Status status = engine::Validate(params);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(std::string(status.message()), ::testing::StartsWith(name));
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("found"));
    params.growth.max_gen_length = 0;  // then nothing is asked of the others
    EXPECT_TRUE(engine::Validate(params).ok()) << name;
  };
  refused([](auto& p) { p.growth.max_gen_length = 2; }, "growth.max_gen_length");
  refused([](auto& p) { p.growth.max_gen_length = 9; }, "growth.max_gen_length");
  refused([](auto& p) { p.suppress_eos = true; }, "growth.max_gen_length");
  refused([](auto& p) { p.stop_ids.clear(); }, "growth.max_gen_length");
  refused([](auto& p) { p.growth.by = 3; }, "growth.by");
  refused([](auto& p) { p.growth.by = -2; }, "growth.by");
  refused([](auto& p) { p.growth.window = 0; }, "growth.window");
  refused([](auto& p) { p.growth.eos_threshold = 1.5; }, "growth.eos_threshold");
  refused([](auto& p) { p.growth.eos_threshold_decoding = -1; }, "growth.eos_threshold_decoding");
  refused([](auto& p) { p.growth.low_confidence = std::numeric_limits<double>::quiet_NaN(); },
          "growth.low_confidence");
}

}  // namespace
}  // namespace maskkv::engine::canvas_growth_test
