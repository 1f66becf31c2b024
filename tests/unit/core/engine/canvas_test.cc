// SPDX-License-Identifier: Apache-2.0
#include "core/engine/canvas.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "tests/support/seed.h"

namespace maskkv::engine::canvas_test {
namespace {

using ::testing::ElementsAre;

constexpr std::int32_t kMask = 99;
constexpr std::int32_t kEos = 7;

GenerateParams Params(std::int64_t gen_length, std::int64_t block_length, std::int64_t steps) {
  GenerateParams params;
  params.gen_length = gen_length;
  params.block_length = block_length;
  params.steps = steps;
  params.stop_ids = {kEos};
  return params;
}

std::vector<Prediction> Predict(const Canvas& canvas, std::int32_t token,
                                const std::vector<float>& confidences) {
  std::vector<Prediction> predictions;
  for (std::size_t i = 0; i < canvas.candidates().size(); ++i) {
    predictions.push_back({.position = canvas.candidates()[i],
                           .token = token,
                           .confidence = confidences[i],
                           .score = confidences[i]});
  }
  return predictions;
}

std::vector<std::int64_t> Positions(const std::vector<Prediction>& predictions) {
  std::vector<std::int64_t> positions;
  for (const Prediction& prediction : predictions) positions.push_back(prediction.position);
  return positions;
}

TEST(Canvas, CommitsTheMostConfidentPredictionsOfTheCurrentBlockOnly) {
  Canvas canvas(Params(4, 2, 2), kMask);
  EXPECT_THAT(canvas.candidates(), ElementsAre(0, 1));
  EXPECT_THAT(Positions(canvas.Commit(Predict(canvas, 5, {0.2F, 0.9F}))), ElementsAre(0, 1));
  EXPECT_THAT(canvas.candidates(), ElementsAre(2, 3));
  EXPECT_EQ(canvas.step(), 1);
  EXPECT_THAT(canvas.tokens(), ElementsAre(5, 5, kMask, kMask));
}

TEST(Canvas, GivesTiesToTheLowerPosition) {
  Canvas canvas(Params(3, 3, 3), kMask);
  EXPECT_THAT(Positions(canvas.Commit(Predict(canvas, 5, {0.5F, 0.5F, 0.5F}))), ElementsAre(0));
  EXPECT_THAT(Positions(canvas.Commit(Predict(canvas, 5, {0.1F, 0.1F}))), ElementsAre(1));
}

TEST(Canvas, FinishesOnceEverythingUpToTheFirstEndTokenIsDecided) {
  Canvas canvas(Params(4, 4, 4), kMask);
  // An end token behind a mask does not end the answer yet.
  canvas.Commit(Predict(canvas, kEos, {0.1F, 0.9F, 0.1F, 0.1F}));
  EXPECT_FALSE(canvas.finished());
  canvas.Commit(Predict(canvas, 3, {0.9F, 0.1F, 0.1F}));
  EXPECT_EQ(canvas.finish_reason(), FinishReason::kStop);
  EXPECT_THAT(canvas.Answer(), ElementsAre(3));
  EXPECT_TRUE(canvas.candidates().empty());
}

TEST(Canvas, DecodesEverythingWhenEndTokensAreIgnored) {
  GenerateParams params = Params(2, 2, 2);
  params.ignore_eos = true;
  Canvas canvas(params, kMask);
  canvas.Commit(Predict(canvas, kEos, {0.9F, 0.1F}));
  EXPECT_FALSE(canvas.finished());
  canvas.Commit(Predict(canvas, 4, {0.9F}));
  EXPECT_EQ(canvas.finish_reason(), FinishReason::kLength);
  EXPECT_THAT(canvas.Answer(), ElementsAre());  // the answer still ends at the end token
}

TEST(Canvas, SkipsStepsThatWouldCommitNothingAndKeepsTheirNumbers) {
  Canvas canvas(Params(2, 1, 6), kMask);  // 3 steps a block of one mask
  EXPECT_EQ(canvas.step(), 0);
  canvas.Commit(Predict(canvas, 1, {0.5F}));
  EXPECT_EQ(canvas.step(), 3);
  canvas.Commit(Predict(canvas, 1, {0.5F}));
  EXPECT_EQ(canvas.finish_reason(), FinishReason::kLength);
}

TEST(Canvas, MayStartWithGivenTokensAndSkipsBlocksWithoutAMask) {
  GenerateParams params = Params(6, 2, 6);
  params.whole_canvas = true;
  Canvas canvas(params, kMask, 0, std::vector<std::int32_t>{kEos, 1, 2, kMask, 3, kMask});
  EXPECT_THAT(canvas.candidates(), ElementsAre(3));
  EXPECT_EQ(canvas.step(), 2);
  EXPECT_THAT(canvas.Answer(), ElementsAre(kEos, 1, 2));
  canvas.Commit(Predict(canvas, kEos, {0.5F}));
  EXPECT_THAT(canvas.candidates(), ElementsAre(5));
  EXPECT_EQ(canvas.step(), 4);
  canvas.Commit(Predict(canvas, 8, {0.5F}));
  EXPECT_EQ(canvas.finish_reason(), FinishReason::kLength);
  EXPECT_THAT(canvas.Answer(), ElementsAre(kEos, 1, 2, kEos, 3, 8));
  canvas.CheckInvariants();
}

TEST(Canvas, GivenTokensUpToAnEndTokenEndItWhereTheyMay) {
  Canvas canvas(Params(3, 3, 3), kMask, 0, std::vector<std::int32_t>{5, kEos, kMask});
  EXPECT_EQ(canvas.finish_reason(), FinishReason::kStop);
  EXPECT_THAT(canvas.Answer(), ElementsAre(5));
}

TEST(Canvas, AQuotaCountsTheMasksThatABlockBeganWith) {
  Canvas canvas(Params(5, 5, 2), kMask, 0, std::vector<std::int32_t>{1, kMask, 2, kMask, kMask});
  EXPECT_THAT(Positions(canvas.Commit(Predict(canvas, 4, {0.1F, 0.3F, 0.2F}))), ElementsAre(3, 4));
  EXPECT_THAT(Positions(canvas.Commit(Predict(canvas, 4, {0.1F}))), ElementsAre(1));
  EXPECT_TRUE(canvas.finished());
}

TEST(Canvas, KeepsItsInvariantsThroughRandomRuns) {
  const std::uint64_t seed = maskkv::testing::Seed();
  std::mt19937_64 random(seed);
  for (int run = 0; run < 300; ++run) {
    const auto blocks = static_cast<std::int64_t>(1 + random() % 4);
    const auto block_length = static_cast<std::int64_t>(1 + random() % 9);
    const auto steps = static_cast<std::int64_t>(1 + random() % 12);
    GenerateParams params = Params(blocks * block_length, block_length, blocks * steps);
    params.ignore_eos = random() % 2 == 0;
    Canvas canvas(params, kMask);
    canvas.CheckInvariants();
    std::int64_t last_step = -1;
    std::int64_t committed = 0;
    while (!canvas.finished()) {
      ASSERT_GT(canvas.step(), last_step);
      last_step = canvas.step();
      const std::vector<std::int32_t> before(canvas.tokens().begin(), canvas.tokens().end());
      std::vector<Prediction> predictions;
      for (const std::int64_t position : canvas.candidates()) {
        predictions.push_back(
            {position, static_cast<std::int32_t>(random() % 20), static_cast<float>(random() % 5)});
      }
      const auto chosen = canvas.Commit(predictions);
      committed += static_cast<std::int64_t>(chosen.size());
      ASSERT_FALSE(chosen.empty());
      canvas.CheckInvariants();
      for (std::size_t i = 0; i < before.size(); ++i) {
        const bool kept = before[i] == kMask || canvas.tokens()[i] == before[i];
        ASSERT_TRUE(kept) << "position " << i << ", seed " << seed;
      }
    }
    EXPECT_TRUE(canvas.finish_reason() == FinishReason::kStop || committed == params.gen_length);
  }
}

TEST(GenerateParams, AreRefusedWithTheParametersName) {
  const auto refused = [](GenerateParams params, const char* name) {
    const absl::Status status = Validate(params);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(std::string(status.message()), ::testing::StartsWith(name));
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("found"));
  };
  refused(Params(0, 1, 1), "gen_length");
  refused(Params(10, 4, 10), "gen_length");
  refused(Params(8, 0, 8), "block_length");
  refused(Params(8, 4, 0), "steps");
  refused(Params(8, 4, 3), "steps");
  GenerateParams params = Params(8, 4, 8);
  params.temperature = -1;
  refused(params, "temperature");
  params.temperature = std::numeric_limits<double>::quiet_NaN();
  refused(params, "temperature");
  params = Params(8, 4, 8);
  params.suppress_eos = true;
  params.stop_ids.clear();
  refused(params, "suppress_eos");
  EXPECT_TRUE(Validate(Params(8, 4, 8)).ok());
}

// Every rule decides every canvas, whatever is predicted, in no more steps than it has.
TEST(Canvas, EveryRuleDecidesTheCanvas) {
  std::mt19937_64 random(maskkv::testing::Seed());
  for (const decoding::Rule rule : decoding::AllRules()) {
    for (int round = 0; round < 40; ++round) {
      const auto blocks = static_cast<std::int64_t>(1 + random() % 4);
      const auto length = static_cast<std::int64_t>(1 + random() % 7);
      GenerateParams params =
          Params(blocks * length, length, blocks * static_cast<std::int64_t>(1 + random() % 9));
      params.rule.rule = rule;
      params.rule.alg_temp = random() % 2 == 0 ? 0 : 0.5;
      params.seed = random();
      params.ignore_eos = true;
      Canvas canvas(params, kMask, 100);
      const std::int64_t most = decoding::IsScheduled(rule) ? params.steps : params.gen_length;
      std::int64_t steps = 0, last = -1;
      for (; !canvas.finished(); ++steps) {
        ASSERT_LT(steps, most) << decoding::Name(rule);
        EXPECT_GT(canvas.step(), last);
        last = canvas.step();
        std::vector<float> scores(canvas.candidates().size());
        for (float& score : scores) score = static_cast<float>(random() % 8) / 8;
        const auto committed = canvas.Commit(Predict(canvas, 5, scores));
        if (rule != decoding::Rule::kOrigin) {
          EXPECT_FALSE(committed.empty()) << decoding::Name(rule);
        }
        canvas.CheckInvariants();
      }
      EXPECT_THAT(canvas.tokens(), ::testing::Each(5));
    }
  }
}

}  // namespace
}  // namespace maskkv::engine::canvas_test
