// SPDX-License-Identifier: Apache-2.0
#include "kernels/head/vocab_head.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/gemm/matmul_ref.h"
#include "kernels/head/token_reducer.h"
#include "kernels/head/vocab_head_ref.h"
#include "tests/support/seed.h"

namespace maskkv::kernels::vocab_head_test {
namespace {

using ::maskkv::testing::NormalValues;
using ::maskkv::testing::Seed;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct HeadProblem {
  std::int64_t rows, in, vocabulary;
  std::vector<float> hidden = NormalValues(rows * in, 1);
  std::vector<float> w = NormalValues(vocabulary * in, 2, 0.2F);

  PackedMatrix Pack(WorkerPool& pool, DType compute) const {
    const MatrixSource source{w.data(), DType::kF32, vocabulary};
    return PackedMatrix::Pack(pool, {&source, 1}, in, compute);
  }

  // Projects rows [begin, begin + count) with one reducer; the tag of a row is its index.
  std::vector<TokenChoice> Choose(WorkerPool& pool, const PackedMatrix& head,
                                  const LogitReducer& reducer, std::int64_t begin,
                                  std::int64_t count) const {
    std::vector<TokenChoice> choices(static_cast<std::size_t>(count));
    std::vector<HeadRow> head_rows;
    for (std::int64_t i = 0; i < count; ++i) {
      head_rows.push_back({hidden.data() + (begin + i) * in, &reducer, begin + i,
                           &choices[static_cast<std::size_t>(i)]});
    }
    HeadWorkspace workspace;
    ProjectVocabulary(pool, head, head_rows, workspace);
    return choices;
  }
};

// Bit for bit, except the unused bytes.
void ExpectSame(const TokenChoice& a, const TokenChoice& b) {
  EXPECT_EQ(a.token, b.token);
  EXPECT_EQ(a.invalid, b.invalid);
  EXPECT_EQ(a.logit, b.logit);
  EXPECT_EQ(a.score, b.score);
  EXPECT_EQ(a.max, b.max);
  EXPECT_EQ(a.sum, b.sum);
}

class VocabHeadTest
    : public ::testing::TestWithParam<std::tuple<DType, std::int64_t, std::int64_t>> {};

TEST_P(VocabHeadTest, ChoosesTheReferencesTokenWithItsConfidenceWithinTheLogitsError) {
  const auto [compute, in, vocabulary] = GetParam();
  const HeadProblem p{33, in, vocabulary};
  WorkerPool pool(2);
  const PackedMatrix head = p.Pack(pool, compute);
  const std::vector<std::int32_t> forbidden = {0, static_cast<std::int32_t>(vocabulary / 2),
                                               1 << 30};
  const ArgmaxReducer reducer(forbidden);
  const std::vector<TokenChoice> choices = p.Choose(pool, head, reducer, 0, p.rows);
  int margins_too_small = 0;
  for (std::int64_t row = 0; row < p.rows; ++row) {
    const RefChoice expected =
        ChooseTokenRef(p.hidden.data() + row * in, in, p.w.data(), vocabulary, compute, forbidden);
    const TokenChoice& actual = choices[static_cast<std::size_t>(row)];
    if (vocabulary == 1) {  // the only id is forbidden
      EXPECT_EQ(actual.token, -1);
      EXPECT_FALSE(actual.valid());
      continue;
    }
    ASSERT_TRUE(actual.valid());
    // A logit is off by at most this; so is the maximum.
    const double logit_error = static_cast<double>(in + 2) * 0x1p-24 * expected.largest_magnitude;
    EXPECT_NEAR(actual.max, expected.logit, logit_error) << "row " << row;
    if (expected.margin <= 2.0 * logit_error) {
      ++margins_too_small;
      continue;
    }
    EXPECT_EQ(actual.token, expected.token) << "row " << row;
    // Every term of the sum is off by the errors of its logit and of the maximum (relative, first
    // order), two units of the exponential, the rounded difference (at most 2^-24 of |l - max| <
    // 2^7), and the additions of a panel's lane.
    const double relative =
        2.0 * logit_error + (4.0 + 0x1p7 + kMaxPanelWidth / 16.0 + 4.0) * 0x1p-24;
    EXPECT_NEAR(actual.confidence(), expected.confidence, 1.1 * relative * expected.confidence)
        << "row " << row;
  }
  std::printf("margins below the error: %d of %d\n", margins_too_small, static_cast<int>(p.rows));
  EXPECT_LE(margins_too_small, 2);
}

TEST_P(VocabHeadTest, ARowsChoiceDoesNotDependOnOtherRowsOrThreads) {
  const auto [compute, in, vocabulary] = GetParam();
  const HeadProblem p{70, in, vocabulary};
  WorkerPool one(1);
  WorkerPool two(2);
  WorkerPool four(4);
  const PackedMatrix head = p.Pack(one, compute);
  const std::vector<std::int32_t> forbidden = {3};
  const ArgmaxReducer argmax(forbidden);
  const GumbelReducer gumbel(Seed(), 4, 0.8F, forbidden);
  const std::array<const LogitReducer*, 2> reducers = {&argmax, &gumbel};
  for (const LogitReducer* reducer : reducers) {
    const std::vector<TokenChoice> all = p.Choose(one, head, *reducer, 0, p.rows);
    const std::vector<TokenChoice> by_two = p.Choose(two, head, *reducer, 0, p.rows);
    const std::vector<TokenChoice> by_four = p.Choose(four, head, *reducer, 0, p.rows);
    for (std::size_t row = 0; row < all.size(); ++row) {
      ExpectSame(all[row], by_two[row]);
      ExpectSame(all[row], by_four[row]);
      if (row % 9 != 0) continue;
      const auto begin = static_cast<std::int64_t>(row);
      ExpectSame(all[row], p.Choose(two, head, *reducer, begin, 1)[0]);
      const std::int64_t count = std::min<std::int64_t>(11, p.rows - begin);
      ExpectSame(all[row], p.Choose(four, head, *reducer, begin, count)[0]);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, VocabHeadTest,
    ::testing::Combine(::testing::Values(DType::kF32, DType::kBF16, DType::kInt8),
                       ::testing::Values(1, 37, 512), ::testing::Values(1, 3, 259, 4096)));

TEST(VocabHead, RowsOfOneCallMayHaveDifferentReducers) {
  const HeadProblem p{3, 64, 500};
  WorkerPool pool(2);
  const PackedMatrix head = p.Pack(pool, DType::kF32);
  const ArgmaxReducer argmax({});
  const GumbelReducer gumbel(7, 1, 1.0F, {});
  TokenChoice mixed[2];
  const HeadRow rows[2] = {{p.hidden.data(), &argmax, 0, &mixed[0]},
                           {p.hidden.data() + 64, &gumbel, 1, &mixed[1]}};
  HeadWorkspace workspace;
  ProjectVocabulary(pool, head, rows, workspace);
  ExpectSame(mixed[0], p.Choose(pool, head, argmax, 0, 1)[0]);
  ExpectSame(mixed[1], p.Choose(pool, head, gumbel, 1, 1)[0]);
}

TEST(VocabHead, NoRowsDoNothing) {
  const HeadProblem p{1, 8, 8};
  WorkerPool pool(2);
  HeadWorkspace workspace;
  ProjectVocabulary(pool, p.Pack(pool, DType::kF32), {}, workspace);
}

TEST(VocabHead, ANanInARowFlagsThatRowAlone) {
  HeadProblem p{20, 64, 500};
  p.hidden[5 * 64 + 3] = std::numeric_limits<float>::quiet_NaN();
  p.hidden[7 * 64] = kInfinity;
  WorkerPool pool(2);
  const ArgmaxReducer argmax({});
  const std::vector<TokenChoice> choices = p.Choose(pool, p.Pack(pool, DType::kF32), argmax, 0, 20);
  for (std::size_t row = 0; row < 20; ++row) {
    EXPECT_EQ(choices[row].valid(), row != 5 && row != 7) << "row " << row;
  }
}

// Remembers the ranges it was given, to pin the order of calls.
class RangeReducer : public LogitReducer {
 public:
  struct State {
    std::int32_t begin, end;
    std::int32_t in_order, calls;
  };
  std::size_t state_bytes() const override { return sizeof(State); }
  void Init(void* state) const override { *static_cast<State*>(state) = {-1, -1, 1, 0}; }
  void Consume(std::int64_t, std::int32_t first_id, std::span<float> logits,
               void* state) const override {
    const auto count = static_cast<std::int32_t>(logits.size());
    *static_cast<State*>(state) = {first_id, first_id + count, 1, 1};
  }
  void Merge(const void* later, void* into) const override {
    const State& from = *static_cast<const State*>(later);
    State& to = *static_cast<State*>(into);
    if (from.begin != to.end) to.in_order = 0;
    to.end = from.end;
    to.calls += from.calls;
  }
};

TEST(VocabHead, StatesAreMergedInAscendingOrderAndCoverTheVocabularyOnce) {
  const HeadProblem p{70, 512, 1111};
  WorkerPool pool(4);
  const PackedMatrix head = p.Pack(pool, DType::kF32);
  const RangeReducer reducer;
  std::vector<RangeReducer::State> states(70);
  std::vector<HeadRow> rows;
  for (std::size_t i = 0; i < 70; ++i) {
    rows.push_back({p.hidden.data() + i * 512, &reducer, 0, &states[i]});
  }
  HeadWorkspace workspace;
  ProjectVocabulary(pool, head, rows, workspace);
  for (const RangeReducer::State& state : states) {
    EXPECT_EQ(state.begin, 0);
    EXPECT_EQ(state.end, 1111);
    EXPECT_EQ(state.in_order, 1);
    EXPECT_EQ(state.calls, head.panels());
  }
}

TEST(VocabHead, MemoryIsStatesAndTilesNeverRowsOfLogits) {
  const HeadProblem p{64, 16, 40000};
  WorkerPool pool(1);
  const PackedMatrix head = p.Pack(pool, DType::kF32);
  const ArgmaxReducer argmax({});
  std::vector<TokenChoice> choices(64);
  std::vector<HeadRow> rows;
  for (std::size_t i = 0; i < 64; ++i) {
    rows.push_back({p.hidden.data() + i * 16, &argmax, 0, &choices[i]});
  }
  HeadWorkspace workspace;
  ProjectVocabulary(pool, head, rows, workspace);
  const std::int64_t states = 64 * head.panels() * static_cast<std::int64_t>(sizeof(TokenChoice));
  const std::int64_t tiles = 2 * kRowTile * kMaxPanelWidth * 4;
  EXPECT_LT(workspace.bytes(), states + tiles + 64 * 1024);
  EXPECT_LT(workspace.bytes(), 64 * 40000 * 4 / 10);
}

}  // namespace
}  // namespace maskkv::kernels::vocab_head_test
