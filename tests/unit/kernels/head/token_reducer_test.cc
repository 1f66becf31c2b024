// SPDX-License-Identifier: Apache-2.0
#include "kernels/head/token_reducer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/sample/gumbel.h"
#include "tests/support/seed.h"

namespace maskkv::kernels {
namespace {

using ::maskkv::testing::NormalValues;
using ::maskkv::testing::Seed;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Reduces a row cut into panels of `width`, merged as the head does.
TokenChoice Reduce(const LogitReducer& reducer, std::vector<float> logits, std::size_t width,
                   std::int64_t tag = 0) {
  TokenChoice whole;
  reducer.Init(&whole);
  for (std::size_t begin = 0; begin < logits.size(); begin += width) {
    TokenChoice part;
    reducer.Init(&part);
    const std::size_t count = std::min(width, logits.size() - begin);
    reducer.Consume(tag, static_cast<std::int32_t>(begin), {logits.data() + begin, count}, &part);
    reducer.Merge(&part, &whole);
  }
  return whole;
}

TEST(ArgmaxReducer, TiesGoToTheLowestIdWithinAndAcrossPanels) {
  std::vector<float> logits(100, 0.0F);
  logits[17] = logits[18] = logits[70] = 3.0F;
  const ArgmaxReducer reducer({});
  for (const std::size_t width : {100UL, 64UL, 10UL, 1UL}) {
    EXPECT_EQ(Reduce(reducer, logits, width).token, 17) << "width " << width;
  }
  EXPECT_EQ(Reduce(reducer, std::vector<float>(100, -2.0F), 16).token, 0);
}

TEST(ArgmaxReducer, ForbiddenIdsLeaveTheChoiceAndTheSoftmax) {
  const std::vector<float> logits = {1.0F, 9.0F, 2.0F, 8.0F, 0.0F};
  const std::vector<std::int32_t> forbidden = {1, 3, 77};
  const TokenChoice choice = Reduce(ArgmaxReducer(forbidden), logits, 2);
  EXPECT_EQ(choice.token, 2);
  EXPECT_EQ(choice.logit, 2.0F);
  const double sum = std::exp(1.0 - 2.0) + 1.0 + std::exp(0.0 - 2.0);
  EXPECT_NEAR(choice.confidence(), 1.0 / sum, 8 * 0x1p-24);
}

TEST(TokenChoice, TheLogarithmOfAConfidenceOutlivesTheConfidence) {
  const TokenChoice sure = Reduce(ArgmaxReducer({}), {1.0F, 9.0F, 2.0F}, 2);
  EXPECT_NEAR(sure.log_confidence(), -std::log1p(std::exp(-8.0) + std::exp(-7.0)), 8 * 0x1p-24);
  TokenChoice choice{};  // as noise may choose: far below the best logit
  choice.logit = -1500;
  choice.max = 500;
  choice.sum = 2;
  EXPECT_EQ(choice.confidence(), 0);
  EXPECT_DOUBLE_EQ(choice.log_confidence(), -2000 - std::log(2.0));
}

TEST(ArgmaxReducer, AllForbiddenOrAllMinusInfinityIsNoChoice) {
  const std::vector<std::int32_t> forbidden = {0, 1, 2};
  EXPECT_FALSE(Reduce(ArgmaxReducer(forbidden), {1.0F, 2.0F, 3.0F}, 2).valid());
  const TokenChoice choice = Reduce(ArgmaxReducer({}), {-kInfinity, -kInfinity}, 1);
  EXPECT_FALSE(choice.valid());
  EXPECT_EQ(choice.token, -1);
  EXPECT_EQ(choice.invalid, 0);
}

TEST(ArgmaxReducer, MinusInfinityHasNoProbabilityAndOneColumnHasAll) {
  const TokenChoice choice = Reduce(ArgmaxReducer({}), {-kInfinity, -5.0F, -kInfinity}, 1);
  EXPECT_EQ(choice.token, 1);
  EXPECT_EQ(choice.confidence(), 1.0);
  EXPECT_EQ(Reduce(ArgmaxReducer({}), {0.25F}, 1).confidence(), 1.0);
}

TEST(ArgmaxReducer, NanAndInfinityAreFlaggedWhereverTheyAreUnlessForbidden) {
  for (const float bad : {kNan, kInfinity}) {
    for (std::size_t at = 0; at < 40; ++at) {
      std::vector<float> logits = NormalValues(40, 1);
      logits[at] = bad;
      for (const std::size_t width : {40UL, 16UL, 7UL}) {
        EXPECT_FALSE(Reduce(ArgmaxReducer({}), logits, width).valid()) << at;
        EXPECT_FALSE(Reduce(GumbelReducer(1, 2, 0.5F, {}), logits, width).valid()) << at;
        const std::vector<std::int32_t> forbidden = {static_cast<std::int32_t>(at)};
        EXPECT_TRUE(Reduce(ArgmaxReducer(forbidden), logits, width).valid()) << at;
      }
    }
  }
}

TEST(ArgmaxReducer, ConfidenceIsWithinTheErrorOfTheF64SoftmaxForAnyPanelWidth) {
  for (const float scale : {0.1F, 3.0F, 40.0F}) {
    const std::vector<float> logits = NormalValues(3000, 2, scale);
    const auto best = std::ranges::max_element(logits);
    double sum = 0.0;
    for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - *best);
    for (const std::size_t width : {3000UL, 256UL, 64UL, 5UL}) {
      const TokenChoice choice = Reduce(ArgmaxReducer({}), logits, width);
      EXPECT_EQ(choice.token, best - logits.begin());
      // A lane's additions, folding, the exponential, and the rounded difference.
      const double relative = (static_cast<double>(width) / 16.0 + 8.0 + 10.0 * scale) * 0x1p-24;
      EXPECT_NEAR(choice.confidence(), 1.0 / sum, relative / sum) << "width " << width;
    }
  }
}

TEST(GumbelReducer, ChoosesTheArgmaxOfTheDocumentedScoreWithTheRawConfidence) {
  const std::vector<float> logits = NormalValues(2000, 3, 2.0F);
  const std::vector<std::int32_t> forbidden = {5, 900};
  for (const std::int64_t position : {0, 41, 4000}) {
    std::vector<float> noise(logits.size());
    GumbelNoise(Seed(), static_cast<std::uint32_t>(position), 6, 0, noise);
    std::int32_t expected = -1;
    float best = -kInfinity;
    for (std::size_t id = 0; id < logits.size(); ++id) {
      const float score = logits[id] + 0.9F * noise[id];
      if (id == 5 || id == 900 || score <= best) continue;
      best = score;
      expected = static_cast<std::int32_t>(id);
    }
    for (const std::size_t width : {2000UL, 256UL, 100UL}) {
      const GumbelReducer reducer(Seed(), 6, 0.9F, forbidden);
      const TokenChoice choice = Reduce(reducer, logits, width, position);
      EXPECT_EQ(choice.token, expected);
      EXPECT_EQ(choice.score, best);
      EXPECT_EQ(choice.logit, logits[static_cast<std::size_t>(expected)]);
      const TokenChoice raw = Reduce(ArgmaxReducer(forbidden), logits, width);
      EXPECT_EQ(choice.max, raw.max);
      EXPECT_EQ(choice.sum, raw.sum);
    }
  }
}

TEST(GumbelReducer, DrawsFollowTheSoftmaxAtItsTemperature) {
  const std::vector<float> logits = {0.5F, 2, -1, 1.25F, 0, 1.5F, -0.5F};
  constexpr float kTemperature = 0.7F;
  constexpr int kDraws = 40000;
  std::vector<double> counts(logits.size()), weights;
  for (int draw = 0; draw < kDraws; ++draw) {
    const GumbelReducer reducer(Seed(), static_cast<std::uint32_t>(draw / 64), kTemperature, {});
    counts[static_cast<std::size_t>(Reduce(reducer, logits, 3, draw % 64).token)] += 1;
  }
  double sum = 0;
  for (const float logit : logits) {
    sum += weights.emplace_back(std::exp(static_cast<double>(logit) / kTemperature));
  }
  double statistic = 0;
  for (std::size_t id = 0; id < logits.size(); ++id) {
    const double mean = kDraws * weights[id] / sum;
    statistic += (counts[id] - mean) * (counts[id] - mean) / mean;
  }
  EXPECT_LT(statistic, 33.11);  // 99.999 % of chi-square with 6 degrees of freedom
}

TEST(GumbelReducer, NeverChoosesAnIdOfNoProbability) {
  std::vector<float> logits(300, -kInfinity);
  logits[123] = -1000.0F;
  for (std::uint32_t step = 0; step < 50; ++step) {
    EXPECT_EQ(Reduce(GumbelReducer(Seed(), step, 5.0F, {}), logits, 64).token, 123);
  }
}

TEST(GumbelReducer, SeedPositionAndStepChangeTheDraw) {
  const std::vector<float> flat(1000, 0.0F);
  const auto draw = [&](std::uint64_t seed, std::uint32_t step, std::int64_t position) {
    return Reduce(GumbelReducer(seed, step, 1.0F, {}), flat, 256, position).token;
  };
  EXPECT_EQ(draw(1, 2, 3), draw(1, 2, 3));
  EXPECT_NE(draw(1, 2, 3), draw(2, 2, 3));
  EXPECT_NE(draw(1, 2, 3), draw(1, 3, 3));
  EXPECT_NE(draw(1, 2, 3), draw(1, 2, 4));
}

}  // namespace
}  // namespace maskkv::kernels
