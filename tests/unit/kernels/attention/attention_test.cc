// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <memory>
#include <random>

#include "tests/support/seed.h"
#include "tests/unit/kernels/attention/attention_problem.h"

namespace maskkv::kernels {
namespace {

struct Mode {
  const LaneKernels* lanes;
  DType products;
};

std::string NameOf(const Mode& mode) {
  return std::string(mode.lanes->name) + (mode.products == DType::kBF16 ? "_products" : "");
}

// Every function that the machine can run: f32 on every instruction set, bf16 on those with a unit
// for it (which share the f32 one of the next).
std::vector<Mode> EveryMode() {
  std::vector<Mode> modes;
  for (const LaneKernels* lanes : SupportedLaneKernels()) {
    const bool unit = lanes->attend_bf16 != lanes->attend;
    modes.push_back({lanes, unit ? DType::kBF16 : DType::kF32});
  }
  return modes;
}

class RaggedAttentionTest : public ::testing::TestWithParam<Mode> {
 protected:
  RaggedAttentionTest() { workspace_.lanes = GetParam().lanes; }

  // A shape whose products are of the mode.
  AttentionShape Shape(std::int64_t heads, std::int64_t kv_heads, std::int64_t head_dim) const {
    return {heads, kv_heads, head_dim, GetParam().products};
  }

  AttentionOutput Run(AttentionProblem& problem, WorkerPool& pool) {
    AttentionOutput output;
    const AttentionRequest request = problem.Request(output);
    RaggedAttention(pool, problem.spec().shape, {&request, 1}, workspace_);
    return output;
  }
  AttentionOutput Run(AttentionProblem& problem) { return Run(problem, pool_); }

  void ExpectCloseToTwin(const ProblemSpec& spec, std::uint64_t seed) {
    AttentionProblem problem(spec, seed);
    const AttentionOutput output = Run(problem);
    EXPECT_EQ(CompareWithTwin(problem, output), "") << spec.ToString() << ", seed " << seed;
  }

  WorkerPool pool_{1};
  AttentionWorkspace workspace_;
};

INSTANTIATE_TEST_SUITE_P(EveryInstructionSet, RaggedAttentionTest, ::testing::ValuesIn(EveryMode()),
                         [](const auto& mode) { return NameOf(mode.param); });

void ExpectSameBits(const AttentionOutput& a, const AttentionOutput& b, const std::string& what) {
  EXPECT_EQ(a.out, b.out) << what;
  EXPECT_EQ(a.lse, b.lse) << what;
}

TEST_P(RaggedAttentionTest, EqualsTheTwinForEveryHeadDimension) {
  for (const std::int64_t head_dim :
       {1, 2, 3, 5, 6, 7, 8, 10, 16, 17, 31, 64, 80, 96, 128, 130, 256}) {
    ExpectCloseToTwin({Shape(2, 1, head_dim), 9, 5, {70}}, static_cast<std::uint64_t>(head_dim));
  }
}

TEST_P(RaggedAttentionTest, EqualsTheTwinAroundTheBordersOfTilesAndBlocks) {
  for (const std::int64_t keys : {1, 2, 7, 8, 9, 63, 64, 65, 127, 128, 129, 200}) {
    for (const std::int64_t rows : {1, 3, 15, 16, 17, 32, 33, 127, 128, 129}) {
      ExpectCloseToTwin({Shape(1, 1, 6), rows, keys, {}},
                        static_cast<std::uint64_t>(keys * 1000 + rows));
    }
  }
}

TEST_P(RaggedAttentionTest, EqualsTheTwinWithRaggedCachedHeads) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kInt8}) {
    ExpectCloseToTwin({Shape(4, 4, 16), 8, 8, {0, 1, 63, 130}, dtype}, 1);
    ExpectCloseToTwin({Shape(6, 2, 10), 33, 33, {64, 5}, dtype}, 2);
    ExpectCloseToTwin({Shape(8, 1, 64), 40, 0, {100}, dtype}, 3);
    ExpectCloseToTwin({Shape(2, 2, 64), 7, 3, {0, 0}, dtype}, 4);
  }
}

TEST_P(RaggedAttentionTest, EqualsTheTwinOnRandomShapes) {
  std::mt19937_64 random(maskkv::testing::Seed() + 1);
  const auto below = [&](std::uint64_t n) { return static_cast<std::int64_t>(random() % n); };
  for (int round = 0; round < 60; ++round) {
    ProblemSpec spec{
        .shape = Shape(1, 1, 1), .query_rows = 1 + below(70), .own_rows = below(90), .pairs = {}};
    spec.shape.kv_heads = 1 + below(3);
    spec.shape.heads = spec.shape.kv_heads * (1 + below(3));
    spec.shape.head_dim = 1 + below(40);
    spec.cached_dtype = static_cast<DType>(below(3));
    for (std::int64_t g = 0; g < spec.shape.kv_heads; ++g) spec.pairs.push_back(below(150));
    if (below(4) == 0) spec.pairs.clear();
    if (spec.own_rows == 0 && spec.pairs.empty()) spec.own_rows = 1;
    spec.query_scale = static_cast<float>(std::ldexp(1.0, static_cast<int>(below(8)) - 2));
    ExpectCloseToTwin(spec, random());
  }
}

TEST_P(RaggedAttentionTest, EqualsTheTwinWhenScoresAreFarApart) {
  // Standard deviations of the scores of 20 to 1000: one key takes nearly everything, most weights
  // underflow.
  for (const float scale : {20.0F, 80.0F, 300.0F, 1000.0F}) {
    ExpectCloseToTwin({Shape(2, 2, 64), 20, 40, {100, 3}, DType::kF32, scale}, 7);
  }
}

TEST_P(RaggedAttentionTest, EqualsTheTwinWhenOneKeyDominates) {
  for (const std::int64_t strong : {0, 63, 64, 100, 149}) {
    AttentionProblem problem({Shape(1, 1, 8), 5, 150, {}}, 11);
    for (float& element : problem.q) element = std::abs(element) + 0.1F;
    for (std::int64_t c = 0; c < 8; ++c) {
      problem.own_k[static_cast<std::size_t>(strong * problem.ldkv + c)] = 90.0F;
    }
    const AttentionOutput output = Run(problem);
    EXPECT_EQ(CompareWithTwin(problem, output), "") << "key " << strong;
  }
}

TEST_P(RaggedAttentionTest, EqualsTheTwinOnDenormals) {
  AttentionProblem problem({Shape(1, 1, 8), 4, 70, {}}, 12);
  for (float& element : problem.q) element *= 1e-42F;
  for (float& element : problem.own_v) element *= 1e-41F;
  const AttentionOutput output = Run(problem);
  EXPECT_EQ(CompareWithTwin(problem, output), "");
}

TEST_P(RaggedAttentionTest, ReturnsTheMeanOfTheValuesForEqualScores) {
  AttentionProblem problem({Shape(1, 1, 4), 2, 96, {}}, 13);
  for (float& element : problem.own_k) element = 0.5F;
  for (std::size_t i = 0; i < problem.own_v.size(); ++i) {
    const std::size_t row = i / static_cast<std::size_t>(problem.ldkv);
    problem.own_v[i] = static_cast<float>(row);
  }
  const AttentionOutput output = Run(problem);
  for (int c = 0; c < 4; ++c) EXPECT_NEAR(output.out[static_cast<std::size_t>(c)], 47.5, 1e-4);
}

TEST_P(RaggedAttentionTest, ReturnsTheOnlyValueExactly) {
  AttentionProblem problem({Shape(1, 1, 6), 3, 1, {}, DType::kF32, 50.0F}, 14);
  const AttentionOutput output = Run(problem);
  for (std::int64_t i = 0; i < 3; ++i) {
    for (std::int64_t c = 0; c < 6; ++c) {
      EXPECT_EQ(output.out[static_cast<std::size_t>(i * problem.ldo + c)],
                problem.own_v[static_cast<std::size_t>(c)]);
    }
  }
}

TEST_P(RaggedAttentionTest, ReturnsZeroAndMinusInfinityForAHeadWithoutKeys) {
  AttentionProblem problem({Shape(4, 2, 6), 3, 0, {0, 2}}, 15);
  const AttentionOutput output = Run(problem);
  for (std::size_t i = 0; i < 3; ++i) {
    for (std::size_t c = 0; c < 12; ++c) {
      EXPECT_EQ(output.out[i * static_cast<std::size_t>(problem.ldo) + c], 0.0F);
    }
    EXPECT_EQ(output.lse[i], -std::numeric_limits<float>::infinity());
    EXPECT_EQ(output.lse[3 + i], -std::numeric_limits<float>::infinity());
    EXPECT_TRUE(std::isfinite(output.lse[6 + i]));
  }
  EXPECT_EQ(CompareWithTwin(problem, output), "");
}

TEST_P(RaggedAttentionTest, DoesNothingWithoutRequestsOrQueryRows) {
  RaggedAttention(pool_, Shape(2, 1, 8), {}, workspace_);
  AttentionProblem problem({Shape(2, 1, 8), 0, 4, {3}}, 16);
  Run(problem);
}

TEST_P(RaggedAttentionTest, AcceptsANullLse) {
  AttentionProblem problem({Shape(2, 1, 8), 5, 4, {3}}, 17);
  const AttentionOutput with = Run(problem);
  AttentionOutput without;
  AttentionRequest request = problem.Request(without);
  request.lse = nullptr;
  RaggedAttention(pool_, problem.spec().shape, {&request, 1}, workspace_);
  EXPECT_EQ(with.out, without.out);
}

TEST_P(RaggedAttentionTest, KeepsANanInTheRowThatHasIt) {
  AttentionProblem problem({Shape(2, 1, 8), 20, 80, {}}, 18);
  problem.q[static_cast<std::size_t>(3 * problem.ldq + 2)] = std::nanf("");  // row 3 of head 0
  const AttentionOutput output = Run(problem);
  for (std::int64_t i = 0; i < 20; ++i) {
    for (std::int64_t c = 0; c < 16; ++c) {
      EXPECT_EQ(std::isnan(output.out[static_cast<std::size_t>(i * problem.ldo + c)]),
                i == 3 && c < 8)
          << i << ' ' << c;
    }
  }
}

TEST_P(RaggedAttentionTest, ShowsANanOfAKeyInEveryRow) {
  AttentionProblem problem({Shape(1, 1, 8), 20, 80, {}}, 19);
  problem.own_k[static_cast<std::size_t>(71 * problem.ldkv)] = std::nanf("");
  const AttentionOutput output = Run(problem);
  for (std::int64_t i = 0; i < 20; ++i) {
    EXPECT_TRUE(std::isnan(output.out[static_cast<std::size_t>(i * problem.ldo)]));
    EXPECT_TRUE(std::isnan(output.lse[static_cast<std::size_t>(i)]));
  }
}

TEST_P(RaggedAttentionTest, ReturnsTheSameBitsForEveryThreadCount) {
  AttentionProblem problem({Shape(6, 3, 20), 150, 150, {0, 77, 300}, DType::kBF16}, 20);
  const AttentionOutput one = Run(problem);
  for (const int threads : {2, 3, 4}) {
    WorkerPool pool(threads);
    ExpectSameBits(Run(problem, pool), one, std::to_string(threads) + " threads");
  }
}

TEST_P(RaggedAttentionTest, ReturnsTheSameBitsAloneAndInABatch) {
  std::vector<std::unique_ptr<AttentionProblem>> problems;
  std::vector<AttentionOutput> alone;
  std::vector<AttentionOutput> together(8);
  std::vector<AttentionRequest> requests;
  for (std::int64_t i = 0; i < 8; ++i) {
    const ProblemSpec spec{
        Shape(4, 2, 24), 1 + i * 19, i * 7, {i * 30, 250 - i * 30}, DType::kBF16};
    problems.push_back(std::make_unique<AttentionProblem>(spec, static_cast<std::uint64_t>(i)));
    alone.push_back(Run(*problems.back()));
  }
  for (std::size_t i = 0; i < 8; ++i) requests.push_back(problems[i]->Request(together[i]));
  WorkerPool pool(3);
  RaggedAttention(pool, Shape(4, 2, 24), requests, workspace_);
  for (std::size_t i = 0; i < 8; ++i) {
    ExpectSameBits(together[i], alone[i], "request " + std::to_string(i));
  }
}

TEST_P(RaggedAttentionTest, ReturnsTheSameBitsForARowWhateverTheOtherRows) {
  AttentionProblem problem({Shape(4, 2, 24), 140, 30, {90, 10}}, 21);
  const AttentionOutput all = Run(problem);
  for (const std::int64_t row : {0, 17, 127, 139}) {
    AttentionOutput one;
    AttentionRequest request = problem.Request(one);
    request.q += row * problem.ldq;
    request.query_rows = 1;
    RaggedAttention(pool_, problem.spec().shape, {&request, 1}, workspace_);
    for (std::int64_t c = 0; c < 96; ++c) {
      EXPECT_EQ(one.out[static_cast<std::size_t>(c)],
                all.out[static_cast<std::size_t>(row * problem.ldo + c)]);
    }
  }
}

TEST_P(RaggedAttentionTest, ReturnsTheSameBitsForPairsInTheCacheAndInOwnRows) {
  // 100 rows, of which the first 37 move to the cache: what cache `full` does to cache `none`. bf16
  // numbers are the same in either type.
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    if (dtype != DType::kF32 && dtype != GetParam().products) continue;
    AttentionProblem own({Shape(2, 2, 12), 100, 100, {}}, 22);
    AttentionProblem split({Shape(2, 2, 12), 100, 63, {37, 37}, dtype}, 22);
    split.q = own.q;
    for (std::int64_t j = 0; j < 100; ++j) {
      for (std::int64_t c = 0; c < 24; ++c) {
        const auto from = static_cast<std::size_t>(j * own.ldkv + c);
        const auto head = static_cast<std::size_t>(c / 12);
        const auto cached = static_cast<std::size_t>(j * 12 + c % 12);
        const auto to = static_cast<std::size_t>((j - 37) * own.ldkv + c);
        (j < 37 ? split.cached_k[head][cached] : split.own_k[to]) = own.own_k[from];
        (j < 37 ? split.cached_v[head][cached] : split.own_v[to]) = own.own_v[from];
        if (j >= 37) continue;
        split.cached_k16[head][cached] = ToBf16(own.own_k[from]);
        split.cached_v16[head][cached] = ToBf16(own.own_v[from]);
      }
    }
    ExpectSameBits(Run(split), Run(own), std::string(Name(dtype)));
  }
}

TEST_P(RaggedAttentionTest, ShowsANanOfAValueInItsDimension) {
  AttentionProblem problem({Shape(1, 1, 7), 20, 81, {}}, 25);
  problem.own_v[static_cast<std::size_t>(80 * problem.ldkv + 6)] = std::nanf("");
  const AttentionOutput output = Run(problem);
  for (std::int64_t i = 0; i < 20; ++i) {
    for (std::int64_t c = 0; c < 7; ++c) {
      EXPECT_EQ(std::isnan(output.out[static_cast<std::size_t>(i * problem.ldo + c)]), c == 6);
    }
  }
}

TEST(RaggedAttention, TakesBf16NumbersAsF32WhereThereIsNoUnit) {
  WorkerPool pool(1);
  AttentionProblem problem({{4, 2, 20, DType::kBF16}, 30, 30, {0, 70}, DType::kBF16}, 26);
  for (const LaneKernels* lanes : SupportedLaneKernels()) {
    if (lanes->attend_bf16 != lanes->attend) continue;
    AttentionWorkspace workspace;
    workspace.lanes = lanes;
    AttentionOutput f32, bf16;
    AttentionRequest request = problem.Request(f32);
    RaggedAttention(pool, {4, 2, 20}, {&request, 1}, workspace);
    request = problem.Request(bf16);
    RaggedAttention(pool, {4, 2, 20, DType::kBF16}, {&request, 1}, workspace);
    ExpectSameBits(bf16, f32, lanes->name);
  }
}

TEST_P(RaggedAttentionTest, ReturnsTheSameBitsForInt8PairsAndForWhatTheyAreReadAs) {
  for (const std::int64_t head_dim : {1, 5, 16, 17, 64, 80, 128}) {
    const ProblemSpec spec{Shape(4, 2, head_dim), 21, 40, {150, 64}, DType::kInt8};
    AttentionProblem narrow(spec, static_cast<std::uint64_t>(head_dim));
    ProblemSpec wide_spec = spec;
    wide_spec.cached_dtype = DType::kF32;
    AttentionProblem wide(wide_spec, static_cast<std::uint64_t>(head_dim));
    for (std::size_t g = 0; g < 2; ++g) {
      for (std::int64_t at = 0; at < std::ssize(wide.cached_k[g]); ++at) {
        const auto to = static_cast<std::size_t>(at);
        const std::int64_t row = at / head_dim;
        wide.cached_k[g][to] = narrow.cached_k8[g].At(row, head_dim, at % head_dim);
        wide.cached_v[g][to] = narrow.cached_v8[g].At(row, head_dim, at % head_dim);
      }
    }
    ExpectSameBits(Run(narrow), Run(wide), spec.ToString());
  }
}

TEST_P(RaggedAttentionTest, ShowsAScaleThatIsNoNumberInEveryRow) {
  AttentionProblem problem({Shape(1, 1, 8), 20, 3, {80}, DType::kInt8}, 25);
  problem.cached_k8[0].scales[71] = std::nanf("");
  const AttentionOutput output = Run(problem);
  for (std::int64_t i = 0; i < 20; ++i) {
    EXPECT_TRUE(std::isnan(output.out[static_cast<std::size_t>(i * problem.ldo)]));
  }
}

TEST(RaggedAttention, ReturnsTheSameBitsOnEveryInstructionSetWithFma) {
  WorkerPool pool(1);
  for (const auto& [head_dim, dtype] :
       {std::pair{6, DType::kBF16}, {64, DType::kInt8}, {128, DType::kBF16}, {120, DType::kInt8}}) {
    AttentionProblem problem({{6, 2, head_dim}, 50, 50, {0, 100}, dtype}, 23);
    std::vector<AttentionOutput> outputs;
    for (const LaneKernels* lanes : SupportedLaneKernels()) {
      if (std::string(lanes->name) == "portable") continue;
      AttentionWorkspace workspace;
      workspace.lanes = lanes;
      const AttentionRequest request = problem.Request(outputs.emplace_back());
      RaggedAttention(pool, problem.spec().shape, {&request, 1}, workspace);
      ExpectSameBits(outputs.back(), outputs.front(), lanes->name);
    }
  }
}

TEST(RaggedAttentionDeathTest, RefusesImpossibleShapes) {
  WorkerPool pool(1);
  AttentionWorkspace workspace;
  EXPECT_DEATH(RaggedAttention(pool, {3, 2, 8}, {}, workspace), "impossible attention shape");
  AttentionProblem problem({{2, 2, 8}, 5, 4, {3, 3}}, 24);
  AttentionOutput output;
  AttentionRequest request = problem.Request(output);
  request.cached = request.cached.subspan(1);
  EXPECT_DEATH(RaggedAttention(pool, {2, 2, 8}, {&request, 1}, workspace), "cached heads");
  request = problem.Request(output);
  request.cached_dtype = DType::kInt8;
  EXPECT_DEATH(RaggedAttention(pool, {2, 2, 8}, {&request, 1}, workspace), "without scales");
}

}  // namespace
}  // namespace maskkv::kernels
