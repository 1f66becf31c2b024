// SPDX-License-Identifier: Apache-2.0
#include "core/engine/mask_mixer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <vector>

#include "core/decoding/commit_rule.h"
#include "core/decoding/prediction.h"

namespace maskkv::engine::mask_mixer_test {
namespace {

using decoding::Prediction;
using decoding::TokenProbability;
using Tokens = std::vector<TokenProbability>;

constexpr std::int32_t kMask = 99;
constexpr std::int64_t kFirst[] = {4};

decoding::RuleParams Params(double weight, double js_threshold) {
  return {.rule = decoding::Rule::kRemix, .mix_weight = weight, .js_threshold = js_threshold};
}

TEST(JensenShannon, IsZeroOfEqualsAndLnTwoOfStrangers) {
  EXPECT_EQ(JensenShannon(Tokens{{1, 0.5F}, {2, 0.25F}}, Tokens{{2, 0.25F}, {1, 0.5F}}), 0);
  EXPECT_DOUBLE_EQ(JensenShannon(Tokens{{1, 1}}, Tokens{{2, 0.125F}}), std::numbers::ln2);
  EXPECT_DOUBLE_EQ(JensenShannon(Tokens{{7, 1}, {1, 0}}, Tokens{{2, 1}, {1, 0}}),
                   std::numbers::ln2);
}

TEST(JensenShannon, OfHalvesByHand) {
  // p = (1/2, 1/2, 0), q = (0, 1/2, 1/2) after norming: m = (1/4, 1/2, 1/4); (ln 2) / 2.
  const Tokens p{{1, 0.25F}, {2, 0.25F}}, q{{3, 0.125F}, {2, 0.125F}};
  EXPECT_NEAR(JensenShannon(p, q), std::numbers::ln2 / 2, 1e-15);
  EXPECT_EQ(JensenShannon(p, q), JensenShannon(q, p));
}

TEST(MaskMixer, MixesALastPredictionWithTheMask) {
  MaskMixer mixer(Params(0.75, 0.1), kMask);
  EXPECT_TRUE(mixer.MixOf(4).empty()) << "nothing was predicted";
  mixer.Update(kFirst, {{{5, 0.25F}, {8, 0.125F}}});
  const auto mix = mixer.MixOf(4);
  ASSERT_EQ(mix.size(), 3U);
  EXPECT_EQ(mix[0].token, kMask);
  EXPECT_EQ(mix[0].weight, 0.25F);
  EXPECT_EQ(mix[1].token, 5);
  EXPECT_EQ(mix[1].weight, 0.5F);
  EXPECT_EQ(mix[2].weight, 0.25F);
  EXPECT_TRUE(mixer.MixOf(5).empty());
}

TEST(MaskMixer, GoesBackToTheMaskForOneStepAfterAMove) {
  MaskMixer mixer(Params(0.5, 0.5), kMask);
  mixer.Update(kFirst, {{{5, 1}}});
  mixer.Update(kFirst, {{{6, 1}}});
  EXPECT_TRUE(mixer.MixOf(4).empty()) << "ln 2 is above 0.5";
  mixer.Update(kFirst, {{{6, 0.5F}}});
  EXPECT_EQ(mixer.MixOf(4).size(), 2U) << "what is compared with is what was predicted";
}

TEST(MaskMixer, ForgetsWhatIsNotAmongTheMasks) {
  MaskMixer mixer(Params(0.5, 0), kMask);
  mixer.Update(kFirst, {{{5, 1}}});
  mixer.Update({}, {});
  EXPECT_TRUE(mixer.MixOf(4).empty());
  mixer.Update(kFirst, {{{6, 1}}});
  EXPECT_FALSE(mixer.MixOf(4).empty()) << "a first prediction has not moved";
}

TEST(MaskMixer, WithoutWeightIsTheMask) {
  MaskMixer mixer(Params(0, 1), kMask);
  mixer.Update(kFirst, {{{5, 1}}});
  EXPECT_TRUE(mixer.MixOf(4).empty());
}

// Scores of n masks of which `above` are above the threshold: how many are committed.
std::size_t Committed(std::int64_t n, std::int64_t above) {
  std::vector<Prediction> predictions;
  for (std::int64_t i = 0; i < n; ++i) {
    predictions.push_back({.position = i, .score = i < above ? 0.95F : 0.5F});
  }
  decoding::RuleParams params = Params(0.5, 0.3);
  return decoding::MakeCommitRule(params)->Choose({}, predictions).size();
}

TEST(RemixRule, CommitsThoseAboveTheThresholdUpToAShare) {
  EXPECT_EQ(Committed(1, 0), 1U);
  EXPECT_EQ(Committed(30, 0), 1U);
  EXPECT_EQ(Committed(30, 4), 4U);
  EXPECT_EQ(Committed(4, 4), 4U);
  EXPECT_EQ(Committed(7, 7), 5U);
  EXPECT_EQ(Committed(10, 10), 7U);
  EXPECT_EQ(Committed(9, 9), 6U) << "6.3 is rounded down";
  EXPECT_EQ(Committed(64, 64), 20U);
  // A score that equals the threshold is not above it.
  const std::vector<Prediction> equal(3, {.score = 0.5F});
  decoding::RuleParams params = Params(0.5, 0.3);
  params.threshold = 0.5;
  EXPECT_EQ(decoding::MakeCommitRule(params)->Choose({}, equal), std::vector<std::size_t>{0});
}

}  // namespace
}  // namespace maskkv::engine::mask_mixer_test
