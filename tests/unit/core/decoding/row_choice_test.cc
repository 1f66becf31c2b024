// SPDX-License-Identifier: Apache-2.0
#include "core/decoding/row_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "core/decoding/rule.h"
#include "core/decoding/scheduled_rules.h"

namespace maskkv::decoding {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

RowChoice Choose(const std::vector<float>& logits, const RuleParams& rule = {}) {
  return ChooseFromRow({.rule = rule}, 0, logits);
}

TEST(RowChoice, WhatIsNoNumberIsNoChoice) {
  EXPECT_FALSE(Choose({0, std::nanf(""), 1}).valid);
  EXPECT_FALSE(Choose({0, kInfinity, 1}).valid);
  EXPECT_FALSE(Choose({-kInfinity, -kInfinity}).valid);
  const std::vector<std::int32_t> all{0, 1};
  EXPECT_FALSE(ChooseFromRow({.forbidden = all}, 0, std::vector<float>{1, 2}).valid);
  // A forbidden id may hold anything.
  const std::vector<std::int32_t> first{0};
  EXPECT_TRUE(ChooseFromRow({.forbidden = first}, 0, std::vector<float>{std::nanf(""), 2}).valid);
}

TEST(RowChoice, OneAllowedIdIsCertain) {
  for (const Rule rule : AllRules()) {
    const RowChoice choice = Choose({-kInfinity, 3, -kInfinity}, {.rule = rule, .top_p = 0.1});
    EXPECT_EQ(choice.token, 1) << Name(rule);
    EXPECT_EQ(choice.confidence, 1) << Name(rule);
    EXPECT_EQ(choice.log_probability, 0) << Name(rule);
    EXPECT_EQ(choice.score, rule == Rule::kEntropy ? 0 : 1) << Name(rule);
  }
}

TEST(RowChoice, TheBestComeByProbabilityTiesByTheLowerId) {
  const RowChoice choice =
      ChooseFromRow({.keep_best = 3}, 0, std::vector<float>{0, 2, -kInfinity, 2, 1});
  std::vector<std::int32_t> ids;
  for (const TokenProbability& best : choice.best) ids.push_back(best.token);
  EXPECT_THAT(ids, ::testing::ElementsAre(1, 3, 4));
  EXPECT_EQ(choice.best[0].probability, choice.best[1].probability);
  EXPECT_EQ(choice.token, 1);
}

// Pearson's statistic over `draws` seeded draws of the row against `expected`.
double ChiSquare(const std::vector<float>& logits, const RuleParams& rule, double temperature,
                 const std::vector<double>& expected, int draws) {
  std::vector<double> counts(logits.size(), 0);
  for (int i = 0; i < draws; ++i) {
    const RowSampling sampling{.rule = rule,
                               .temperature = temperature,
                               .seed = 11,
                               .step = static_cast<std::uint32_t>(i % 97)};
    const RowChoice choice = ChooseFromRow(sampling, static_cast<std::uint32_t>(i / 97), logits);
    counts[static_cast<std::size_t>(choice.token)] += 1;
  }
  double statistic = 0;
  for (std::size_t id = 0; id < expected.size(); ++id) {
    const double mean = expected[id] * draws;
    if (mean == 0) {
      EXPECT_EQ(counts[id], 0) << id;
    } else {
      statistic += (counts[id] - mean) * (counts[id] - mean) / mean;
    }
  }
  return statistic;
}

TEST(RowChoice, SeededDrawsFollowTheExactDistribution) {
  const std::vector<float> logits{0.5F, 2, -1, 1.25F, 0, 1.5F};
  constexpr double kTemperature = 1.5;
  const auto softmax_of = [&](const std::vector<std::size_t>& ids) {
    std::vector<double> p(logits.size(), 0);
    double sum = 0;
    for (const std::size_t id : ids) {
      sum += p[id] = std::exp(static_cast<double>(logits[id]) / kTemperature);
    }
    for (double& value : p) value /= sum;
    return p;
  };
  // 99.99 % quantiles of chi-square with 5, 2 and 2 degrees of freedom.
  EXPECT_LT(ChiSquare(logits, {}, kTemperature, softmax_of({0, 1, 2, 3, 4, 5}), 20000), 25.74);
  EXPECT_LT(ChiSquare(logits, {.top_k = 3}, kTemperature, softmax_of({1, 3, 5}), 20000), 18.42);
  // The three best hold 0.30 + 0.21 + 0.18 of it: those before the third do not exceed 0.6.
  EXPECT_LT(ChiSquare(logits, {.top_p = 0.6}, kTemperature, softmax_of({1, 3, 5}), 20000), 18.42);
}

// How often each of three masks is committed in the one step that is looked at.
std::vector<double> Committed(const RuleParams& params, const StepContext& at, int draws,
                              const std::vector<float>& scores) {
  std::vector<double> counts(scores.size(), 0);
  for (int draw = 0; draw < draws; ++draw) {
    StepContext context = at;
    context.seed = static_cast<std::uint64_t>(draw);
    std::vector<Prediction> predictions;
    for (std::size_t i = 0; i < scores.size(); ++i) {
      predictions.push_back({.position = static_cast<std::int64_t>(i), .score = scores[i]});
    }
    for (const std::size_t i : MakeCommitRule(params)->Choose(context, predictions)) {
      counts[i] += 1;
    }
  }
  return counts;
}

TEST(CommitDraws, OriginTakesEachMaskWithTheStepsShare) {
  constexpr int kDraws = 20000;
  const StepContext context{.step = 1, .block_step = 1, .block_steps = 4, .block_masks = 3};
  const double share = TimestepShare(1e-3, 4, 1);
  const double deviation = std::sqrt(kDraws * share * (1 - share));
  for (const double count : Committed({.rule = Rule::kOrigin}, context, kDraws, {0, 0, 0})) {
    EXPECT_NEAR(count, kDraws * share, 4.5 * deviation);  // 7e-6 a mask
  }
}

TEST(CommitDraws, AlgTempDrawsFromTheSoftmaxOfScores) {
  constexpr int kDraws = 20000;
  // Three masks, a share of 1/3 and a little: one is drawn.
  const StepContext context{.step = 0, .block_step = 0, .block_steps = 2, .block_masks = 3};
  const std::vector<float> scores{0.2F, 0.9F, 0.5F};
  const std::vector<double> counts =
      Committed({.rule = Rule::kMaskgitPlus, .alg_temp = 0.5}, context, kDraws, scores);
  double sum = 0;
  for (const float score : scores) sum += std::exp(static_cast<double>(score) / 0.5);
  for (std::size_t i = 0; i < scores.size(); ++i) {
    const double p = std::exp(static_cast<double>(scores[i]) / 0.5) / sum;
    EXPECT_NEAR(counts[i], kDraws * p, 4.5 * std::sqrt(kDraws * p * (1 - p))) << i;
  }
}

}  // namespace
}  // namespace maskkv::decoding
