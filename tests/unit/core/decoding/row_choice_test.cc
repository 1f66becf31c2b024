// SPDX-License-Identifier: Apache-2.0
#include "core/decoding/row_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "core/decoding/rule.h"
#include "core/decoding/scheduled_rules.h"
#include "kernels/sample/philox.h"

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

// Pearson's statistic of counts over `draws` draws whose probabilities are `expected`.
double Pearson(const std::vector<double>& counts, const std::vector<double>& expected, int draws) {
  double statistic = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double mean = expected[i] * draws;
    if (mean == 0) {
      EXPECT_EQ(counts[i], 0) << i;
    } else {
      statistic += (counts[i] - mean) * (counts[i] - mean) / mean;
    }
  }
  return statistic;
}

// The statistic of `draws` seeded draws of the row.
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
  return Pearson(counts, expected, draws);
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
  // 99.99 % quantiles of chi-square with 5, 2 and 2 degrees of freedom. What a rule ranks by does
  // not move its draws.
  for (const Rule rule : AllRules()) {
    EXPECT_LT(
        ChiSquare(logits, {.rule = rule}, kTemperature, softmax_of({0, 1, 2, 3, 4, 5}), 20000),
        25.74)
        << Name(rule);
  }
  EXPECT_LT(ChiSquare(logits, {.top_k = 3}, kTemperature, softmax_of({1, 3, 5}), 20000), 18.42);
  // The three best hold 0.30 + 0.21 + 0.18 of it: those before the third do not exceed 0.6.
  EXPECT_LT(ChiSquare(logits, {.top_p = 0.6}, kTemperature, softmax_of({1, 3, 5}), 20000), 18.42);
}

// How often each set of masks (bit i: mask i) is committed in the one step that is looked at, over
// seeds; scores_of(seed): of every mask.
std::vector<double> Committed(
    const RuleParams& params, const StepContext& at, int draws,
    const std::function<std::vector<float>(std::uint64_t seed)>& scores_of) {
  std::vector<double> counts(std::size_t{1} << scores_of(0).size(), 0);
  for (int draw = 0; draw < draws; ++draw) {
    StepContext context = at;
    context.seed = static_cast<std::uint64_t>(draw);
    std::vector<Prediction> predictions;
    for (const float score : scores_of(context.seed)) {
      predictions.push_back({.position = std::ssize(predictions), .score = score});
    }
    std::size_t set = 0;
    for (const std::size_t i : MakeCommitRule(params)->Choose(context, predictions)) {
      set |= std::size_t{1} << i;
    }
    counts[set] += 1;
  }
  return counts;
}

TEST(CommitDraws, OriginTakesEachMaskWithTheStepsShare) {
  constexpr int kDraws = 20000;
  const StepContext context{.step = 1, .block_step = 1, .block_steps = 4, .block_masks = 3};
  const double share = TimestepShare(1e-3, 4, 1);
  std::vector<double> expected;
  for (unsigned set = 0; set < 8; ++set) {
    const int taken = std::popcount(set);
    expected.push_back(std::pow(share, taken) * std::pow(1 - share, 3 - taken));
  }
  const auto counts = Committed({.rule = Rule::kOrigin}, context, kDraws,
                                [](std::uint64_t) { return std::vector<float>(3); });
  EXPECT_LT(Pearson(counts, expected, kDraws), 29.88);  // 99.99 % of 7 degrees of freedom
}

TEST(CommitDraws, AlgTempDrawsFromTheSoftmaxOfScoresWithoutReplacement) {
  constexpr int kDraws = 20000;
  // Five masks, a share of 1/2: two are drawn.
  const StepContext context{.step = 0, .block_step = 0, .block_steps = 2, .block_masks = 5};
  const std::vector<float> scores{0.2F, 0.9F, 0.5F, 0.7F, 0.1F};
  std::vector<double> weight, expected(32, 0);
  double sum = 0;
  for (const float score : scores) sum += std::exp(static_cast<double>(score) / 0.5);
  for (const float score : scores) {
    weight.push_back(std::exp(static_cast<double>(score) / 0.5) / sum);
  }
  for (std::size_t i = 0; i < scores.size(); ++i) {
    for (std::size_t j = 0; j < scores.size(); ++j) {  // i first, j of what is left
      if (i != j) expected[1U << i | 1U << j] += weight[i] * weight[j] / (1 - weight[i]);
    }
  }
  const RuleParams params{.rule = Rule::kMaskgitPlus, .eps = 1e-4, .alg_temp = 0.5};
  const auto counts = Committed(params, context, kDraws, [&](std::uint64_t) { return scores; });
  EXPECT_LT(Pearson(counts, expected, kDraws), 33.72);  // 99.99 % of 9 degrees of freedom
}

TEST(CommitDraws, RandomTakesEveryMaskAsOften) {
  constexpr int kDraws = 20000;
  const StepContext context{.step = 2, .block_step = 0, .block_steps = 3, .block_masks = 3};
  // The scores that the engine gives this rule's predictions.
  const auto scores_of = [&](std::uint64_t seed) {
    std::vector<float> scores;
    for (std::uint32_t position = 40; position < 43; ++position) {
      scores.push_back(kernels::Uniform(seed, position, static_cast<std::uint32_t>(context.step), 0,
                                        kernels::PhiloxStream::kRandomConfidence));
    }
    return scores;
  };
  const auto counts = Committed({.rule = Rule::kRandom}, context, kDraws, scores_of);
  const double third = 1.0 / 3;
  EXPECT_LT(Pearson(counts, {0, third, third, 0, third, 0, 0, 0}, kDraws), 18.42);  // of 2 degrees
}

}  // namespace
}  // namespace maskkv::decoding
