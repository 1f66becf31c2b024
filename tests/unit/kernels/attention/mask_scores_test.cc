// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention/mask_scores.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "kernels/attention/attention_ref.h"
#include "tests/support/closeness.h"
#include "tests/support/seed.h"
#include "tests/unit/kernels/attention/attention_problem.h"

namespace maskkv::kernels {
namespace {

class MaskScoresTest : public ::testing::TestWithParam<const LaneKernels*> {
 protected:
  MaskScoresTest() { workspace_.lanes = GetParam(); }

  // The scores that `rows` query rows from `first` on pay to all own keys of the problem.
  std::vector<float> Run(const AttentionProblem& problem, const std::vector<float>& lse,
                         std::int64_t first, std::int64_t rows, WorkerPool& pool) {
    const AttentionShape& shape = problem.spec().shape;
    const std::int64_t keys = problem.spec().own_rows;
    std::vector<float> scores(static_cast<std::size_t>(shape.kv_heads * keys), -1.0F);
    MaskQueryScores(pool, shape, problem.q.data() + first * problem.ldq, problem.ldq, rows,
                    lse.data(), problem.own_k.data(), problem.ldkv, keys, scores.data(),
                    workspace_);
    return scores;
  }

  std::vector<float> Lse(AttentionProblem& problem) {
    AttentionOutput output;
    const AttentionRequest request = problem.Request(output);
    RaggedAttention(pool_, problem.spec().shape, {&request, 1}, workspace_);
    return output.lse;
  }

  // Where the set has a bf16 unit, lse comes from it, over the same numbers.
  AttentionShape Shape(std::int64_t heads, std::int64_t kv_heads, std::int64_t head_dim) const {
    const bool unit = GetParam()->attend_bf16 != GetParam()->attend;
    return {heads, kv_heads, head_dim, unit ? DType::kBF16 : DType::kF32};
  }

  WorkerPool pool_{1};
  AttentionWorkspace workspace_;
};

INSTANTIATE_TEST_SUITE_P(EveryInstructionSet, MaskScoresTest,
                         ::testing::ValuesIn(SupportedLaneKernels()),
                         [](const auto& lanes) { return std::string(lanes.param->name); });

// Largest score and lse magnitudes over all mask rows decide the bound of a score, a sum of
// positive terms 2^(s - lse), relative to the score itself, in units of 2^-24: (head_dim + 8) A for
// the score and the rounded difference (attention_problem.h), 3 |lse| for its change of base, 4 for
// exp2, terms / 16 + 4 for the sum in sixteen chains. One smallest normal number a term for
// underflow.
::testing::AssertionResult EqualToTheTwin(const AttentionProblem& problem,
                                          const std::vector<float>& lse,
                                          const std::vector<float>& got) {
  const AttentionShape& shape = problem.spec().shape;
  const std::int64_t rows = problem.spec().query_rows;
  std::vector<float> want(got.size());
  ref::MaskQueryScores(shape, problem.q.data(), problem.ldq, rows, lse.data(), problem.own_k.data(),
                       problem.ldkv, problem.spec().own_rows, want.data());
  double largest = 0;
  for (std::int64_t h = 0; h < shape.heads; ++h) {
    for (std::int64_t i = 0; i < rows; ++i) {
      largest = std::max(largest, problem.MaxAbsScore(h, i));
    }
  }
  double largest_lse = 0;
  for (const float value : lse) largest_lse = std::max(largest_lse, std::abs(double{value}));
  const std::int64_t heads_per_group = shape.heads / shape.kv_heads;
  const auto terms = static_cast<double>(rows * heads_per_group);
  const double factor =
      1.1 * 0x1p-24 *
      (static_cast<double>(shape.head_dim + 8) * largest + 3 * largest_lse + 4 + terms / 16 + 4);
  return maskkv::testing::AllWithin(got, std::span<const float>(want), [&](std::size_t i) {
    return factor * double{want[i]} + terms * 0x1p-126;
  });
}

TEST_P(MaskScoresTest, EqualTheTwinOnRandomShapes) {
  std::mt19937_64 random(maskkv::testing::Seed() + 2);
  const auto below = [&](std::uint64_t n) { return static_cast<std::int64_t>(random() % n); };
  for (int round = 0; round < 40; ++round) {
    ProblemSpec spec{.shape = Shape(1, 1, 1),
                     .query_rows = 1 + below(70),
                     .own_rows = 1 + below(300),
                     .pairs = {}};
    spec.shape.kv_heads = 1 + below(3);
    spec.shape.heads = spec.shape.kv_heads * (1 + below(3));
    spec.shape.head_dim = 1 + below(70);
    spec.query_scale = static_cast<float>(std::ldexp(1.0, static_cast<int>(below(8)) - 2));
    const std::uint64_t seed = random();
    AttentionProblem problem(spec, seed);
    const std::vector<float> lse = Lse(problem);
    EXPECT_TRUE(EqualToTheTwin(problem, lse, Run(problem, lse, 0, spec.query_rows, pool_)))
        << spec.ToString() << ", seed " << seed;
  }
}

TEST_P(MaskScoresTest, AddUpToOneForEachQueryRow) {
  // Each row's weights sum to one over all keys, so a KV head's scores sum to heads per group times
  // mask rows. Both the weights and lse carry the error of a score; the sum over keys is exact
  // here.
  for (const float scale : {0.1F, 1.0F, 30.0F}) {
    const ProblemSpec spec{Shape(6, 2, 20), 37, 500, {}, DType::kF32, scale};
    AttentionProblem problem(spec, 5);
    const std::vector<float> lse = Lse(problem);
    const std::vector<float> scores = Run(problem, lse, 0, spec.query_rows, pool_);
    double largest = 0;
    for (std::int64_t h = 0; h < 6; ++h) {
      for (std::int64_t i = 0; i < 37; ++i) {
        largest = std::max(largest, problem.MaxAbsScore(h, i));
      }
    }
    const AttentionBound bound = BoundFor(largest, spec.shape, 500);
    const double tolerance = bound.lse + bound.weight + 0x1p-24 * (3 * (largest + 7) + 37 * 3);
    for (std::size_t g = 0; g < 2; ++g) {
      const double total =
          std::accumulate(scores.begin() + static_cast<std::ptrdiff_t>(g * 500),
                          scores.begin() + static_cast<std::ptrdiff_t>((g + 1) * 500), 0.0);
      EXPECT_NEAR(total, 3 * 37, 3 * 37 * tolerance) << "scale " << scale << " head " << g;
    }
  }
}

TEST_P(MaskScoresTest, AreTheSameBitsForEveryThreadCount) {
  AttentionProblem problem({{6, 3, 20}, 45, 700, {}}, 6);
  const std::vector<float> lse = Lse(problem);
  const std::vector<float> one = Run(problem, lse, 0, 45, pool_);
  for (const int threads : {2, 3, 4}) {
    WorkerPool pool(threads);
    EXPECT_EQ(Run(problem, lse, 0, 45, pool), one) << threads << " threads";
  }
}

TEST_P(MaskScoresTest, OfAKeyDoNotDependOnTheOtherKeys) {
  AttentionProblem problem({{4, 2, 20}, 45, 700, {}}, 7);
  const std::vector<float> lse = Lse(problem);
  const std::vector<float> all = Run(problem, lse, 0, 45, pool_);
  std::vector<float> few(6);
  MaskQueryScores(pool_, {4, 2, 20}, problem.q.data(), problem.ldq, 45, lse.data(),
                  problem.own_k.data() + 301 * problem.ldkv, problem.ldkv, 3, few.data(),
                  workspace_);
  for (std::size_t g = 0; g < 2; ++g) {
    for (std::size_t j = 0; j < 3; ++j) EXPECT_EQ(few[g * 3 + j], all[g * 700 + 301 + j]);
  }
}

TEST_P(MaskScoresTest, AreZeroWithoutMaskRowsAndAbsentWithoutKeys) {
  AttentionProblem problem({{2, 2, 8}, 1, 70, {}}, 8);
  EXPECT_EQ(Run(problem, {}, 0, 0, pool_), std::vector<float>(140, 0.0F));
  float untouched = 7.0F;
  MaskQueryScores(pool_, {2, 2, 8}, problem.q.data(), problem.ldq, 1, nullptr, nullptr, 16, 0,
                  &untouched, workspace_);
  EXPECT_EQ(untouched, 7.0F);
}

TEST_P(MaskScoresTest, AreTheExponentialOfASingleProduct) {
  // One query of one, lse zero: scores[j] = exp(k_j), a sweep over the exponential itself. In units
  // of 2^-24: the scaled query is wrong by 3 (constant, quotient) and its product by one more,
  // times k_j; exp2 by 4.
  constexpr std::int64_t kKeys = 100'000;
  const float one = 1.0F;
  const float zero = 0.0F;
  std::vector<float> k(kKeys);
  std::vector<float> scores(kKeys);
  for (std::size_t j = 0; j < k.size(); ++j) k[j] = -static_cast<float>(j) * 0.0009F;
  MaskQueryScores(pool_, {1, 1, 1}, &one, 1, 1, &zero, k.data(), 1, kKeys, scores.data(),
                  workspace_);
  EXPECT_EQ(scores[0], 1.0F);
  double worst = 0;
  for (std::size_t j = 0; j < k.size(); ++j) {
    const double want = std::exp(double{k[j]});
    const double bound = want * 0x1p-24 * (4 * std::abs(double{k[j]}) + 4) + 0x1p-126;
    ASSERT_LE(std::abs(scores[j] - want), bound) << "exp(" << k[j] << ") = " << scores[j];
    if (k[j] > -1.0F) worst = std::max(worst, std::abs(scores[j] - want) / want * 0x1p24);
  }
  RecordProperty("worst_error_above_minus_one_in_2^-24", std::to_string(worst));
  for (std::size_t j = 98'000; j < k.size(); ++j) EXPECT_EQ(scores[j], 0.0F) << k[j];  // < 2^-126
}

TEST_P(MaskScoresTest, ShowANan) {
  AttentionProblem problem({{2, 2, 8}, 5, 70, {}}, 9);
  const std::vector<float> lse = Lse(problem);
  problem.own_k[static_cast<std::size_t>(66 * problem.ldkv + 3)] = std::nanf("");
  const std::vector<float> scores = Run(problem, lse, 0, 5, pool_);
  for (std::size_t j = 0; j < 140; ++j) EXPECT_EQ(std::isnan(scores[j]), j == 66) << j;
}

TEST(MaskScores, AreTheSameBitsOnEveryInstructionSetWithFma) {
  WorkerPool pool(1);
  AttentionProblem problem({{6, 2, 20}, 37, 300, {}}, 10);
  const std::vector<float> lse(222, 3.0F);
  std::vector<std::vector<float>> scores;
  for (const LaneKernels* lanes : SupportedLaneKernels()) {
    if (std::string(lanes->name) == "portable") continue;
    AttentionWorkspace workspace;
    workspace.lanes = lanes;
    scores.emplace_back(600);
    MaskQueryScores(pool, {6, 2, 20}, problem.q.data(), problem.ldq, 37, lse.data(),
                    problem.own_k.data(), problem.ldkv, 300, scores.back().data(), workspace);
    EXPECT_EQ(scores.back(), scores.front()) << lanes->name;
  }
}

}  // namespace
}  // namespace maskkv::kernels
