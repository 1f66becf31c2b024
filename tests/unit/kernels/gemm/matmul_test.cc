// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm/matmul.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <string>
#include <tuple>

#include "kernels/gemm/matmul_ref.h"
#include "tests/support/closeness.h"
#include "tests/unit/kernels/gemm/gemm_problem.h"

namespace maskkv::kernels {
namespace {

using ::maskkv::testing::AllWithin;

constexpr double kHalfUlp = 0x1p-24;

// Products of the rows of p with two matrices, together and one by one: the same bits.
void ExpectTheSameBitsTogether(const GemmProblem& p, const GemmProblem& other, DType compute) {
  WorkerPool pool(3);
  const PackedMatrix weights = p.Pack(pool, compute), wider = other.Pack(pool, compute);
  const std::vector<float> first = RowsOf(pool, weights, p, 0, p.rows);
  const std::vector<float> second = RowsOf(pool, wider, other, 0, p.rows);
  // Odd rows are made on the way, even ones read where they are.
  const auto x = [&](std::int64_t row, float* scratch) -> const float* {
    const float* const from = p.x.data() + row * p.in;
    if (row % 2 == 0) return from;
    std::copy_n(from, p.in, scratch);
    return scratch;
  };
  std::vector<float> y(first.size(), -1.0F), z(second.size(), 0.25F);
  const Product products[] = {{&weights, {0, p.out}, y.data(), p.out, Store::kOverwrite},
                              {&wider, {0, 0}, nullptr, other.out, Store::kOverwrite},
                              {&wider, {0, other.out}, z.data(), other.out, Store::kAdd}};
  GemmWorkspace workspace;
  MatMulRows(pool, products, x, p.rows, workspace);
  EXPECT_EQ(y, first);
  for (std::size_t i = 0; i < z.size(); ++i) ASSERT_EQ(z[i], 0.25F + second[i]) << i;
}

class MatMulTest
    : public ::testing::TestWithParam<std::tuple<DType, std::int64_t, std::int64_t, std::int64_t>> {
 protected:
  DType compute() const { return std::get<0>(GetParam()); }
  GemmProblem problem() const {
    const auto [compute, rows, in, out] = GetParam();
    return {rows, in, out};
  }
};

TEST_P(MatMulTest, StaysWithinTheSummationErrorOfTheReference) {
  const GemmProblem p = problem();
  WorkerPool pool(2);
  const PackedMatrix weights = p.Pack(pool, compute());
  const std::vector<float> y = RowsOf(pool, weights, p, 0, p.rows);
  std::vector<double> expected(y.size());
  std::vector<double> magnitude(y.size());
  MatMulRef(p.x.data(), p.rows, p.in, p.w.data(), p.out, compute(), expected.data(),
            magnitude.data());
  // in products, each rounded, and in - 1 sums, each rounded, in any order.
  const double factor = static_cast<double>(p.in + 2) * kHalfUlp;
  EXPECT_TRUE(AllWithin<double>(y, expected, [&](std::size_t i) { return factor * magnitude[i]; }));
}

TEST_P(MatMulTest, KeepsTheGapsBetweenStridedRowsAndAddsOneRoundedProduct) {
  const GemmProblem p = problem();
  WorkerPool pool(2);
  const PackedMatrix weights = p.Pack(pool, compute());
  const std::vector<float> product = RowsOf(pool, weights, p, 0, p.rows);
  const std::int64_t ldx = p.in + 5;
  const std::int64_t ldy = p.out + 3;
  std::vector<float> x(static_cast<std::size_t>(p.rows * ldx + 1),
                       std::numeric_limits<float>::quiet_NaN());
  for (std::int64_t row = 0; row < p.rows; ++row) {
    std::copy_n(p.x.data() + row * p.in, p.in, x.data() + row * ldx);
  }
  std::vector<float> y(static_cast<std::size_t>(p.rows * ldy + 1), 0.25F);
  GemmWorkspace workspace;
  MatMul(pool, weights, x.data(), p.rows, ldx, y.data(), ldy, Store::kAdd, workspace);
  for (std::int64_t row = 0; row < p.rows; ++row) {
    for (std::int64_t column = 0; column < ldy; ++column) {
      const float actual = y[static_cast<std::size_t>(row * ldy + column)];
      const float expected =
          column < p.out ? 0.25F + product[static_cast<std::size_t>(row * p.out + column)] : 0.25F;
      ASSERT_EQ(actual, expected) << "row " << row << " column " << column;
    }
  }
}

TEST_P(MatMulTest, ProductsOfTheSameRowsAreTheSameBitsTogether) {
  const GemmProblem p = problem();
  GemmProblem other = p;
  other.w = maskkv::testing::NormalValues(p.out * p.in, 3);
  ExpectTheSameBitsTogether(p, other, compute());
}

TEST(MatMul, ProductsOfAnotherWidthAreTheSameBitsTogether) {
  for (const DType compute : {DType::kF32, DType::kBF16, DType::kInt8}) {
    for (const std::int64_t out : {1, 70, 640}) {
      GemmProblem p{33, 259, 37}, other{33, 259, out};
      other.x = p.x;
      ExpectTheSameBitsTogether(p, other, compute);
    }
  }
}

TEST_P(MatMulTest, SomeColumnsAreTheSameBitsAndPanelsWithoutOneAreLeftAlone) {
  const GemmProblem p = problem();
  WorkerPool pool(2);
  const PackedMatrix weights = p.Pack(pool, compute());
  const std::vector<float> whole = RowsOf(pool, weights, p, 0, p.rows);
  GemmWorkspace workspace;
  const std::int64_t half = p.out / 2;
  for (const Columns columns :
       {Columns{0, half}, Columns{half, p.out}, Columns{half, half + 1}, Columns{half, half}}) {
    std::int64_t begin = columns.begin, end = columns.end;  // of the panels that hold one
    for (std::int64_t panel = 0; panel < weights.panels(); ++panel) {
      if (weights.PanelEnd(panel) <= columns.begin || weights.PanelBegin(panel) >= columns.end) {
        continue;
      }
      begin = std::min(begin, weights.PanelBegin(panel));
      end = std::max(end, weights.PanelEnd(panel));
    }
    if (columns.begin == columns.end) end = begin;
    std::vector<float> y(whole.size(), 0.25F);
    MatMulColumns(pool, weights, columns, p.x.data(), p.rows, p.in, y.data(), p.out,
                  Store::kOverwrite, workspace);
    for (std::size_t i = 0; i < y.size(); ++i) {
      const auto column = static_cast<std::int64_t>(i) % p.out;
      ASSERT_EQ(y[i], begin <= column && column < end ? whole[i] : 0.25F)
          << "columns " << columns.begin << " to " << columns.end << ": element " << i;
    }
  }
}

std::string ShapeName(const ::testing::TestParamInfo<MatMulTest::ParamType>& info) {
  const auto [compute, rows, in, out] = info.param;
  return std::string(Name(compute)) + "_rows" + std::to_string(rows) + "_in" + std::to_string(in) +
         "_out" + std::to_string(out);
}

INSTANTIATE_TEST_SUITE_P(
    Odd, MatMulTest,
    ::testing::Combine(::testing::Values(DType::kF32, DType::kBF16, DType::kInt8),
                       ::testing::Values(0, 1, 31, 33), ::testing::Values(1, 3, 37, 259),
                       ::testing::Values(1, 3, 37, 259)),
    ShapeName);
INSTANTIATE_TEST_SUITE_P(Model, MatMulTest,
                         ::testing::Combine(::testing::Values(DType::kF32, DType::kBF16,
                                                              DType::kInt8),
                                            ::testing::Values(70), ::testing::Values(512, 1376),
                                            ::testing::Values(192, 640)),
                         ShapeName);
// Several slabs, the last one shorter.
INSTANTIATE_TEST_SUITE_P(
    Long, MatMulTest,
    ::testing::Combine(::testing::Values(DType::kF32, DType::kBF16, DType::kInt8),
                       ::testing::Values(9), ::testing::Values(4097, 9001), ::testing::Values(65)),
    ShapeName);

TEST(MatMul, PropagatesNanAndInfinityWithinTheirRowOnly) {
  for (const DType compute : {DType::kF32, DType::kBF16, DType::kInt8}) {
    GemmProblem p{20, 64, 96};
    WorkerPool pool(2);
    const PackedMatrix weights = p.Pack(pool, compute);
    const std::vector<float> clean = RowsOf(pool, weights, p, 0, p.rows);
    p.x[3 * 64 + 5] = std::numeric_limits<float>::quiet_NaN();
    p.x[11 * 64 + 63] = std::numeric_limits<float>::infinity();
    const std::vector<float> y = RowsOf(pool, weights, p, 0, p.rows);
    for (std::size_t i = 0; i < y.size(); ++i) {
      const std::size_t row = i / 96;
      if (row == 3) {
        ASSERT_TRUE(std::isnan(y[i]));
      } else if (row == 11) {
        ASSERT_FALSE(std::isfinite(y[i]));
      } else {
        ASSERT_EQ(y[i], clean[i]);
      }
    }
  }
}

TEST(MatMul, AllocatesNothingTheSecondTime) {
  const GemmProblem p{45, 300, 200};
  WorkerPool pool(1);  // one worker sees every shape in the first call
  const PackedMatrix weights = p.Pack(pool, DType::kBF16);
  GemmWorkspace workspace;
  std::vector<float> y(static_cast<std::size_t>(p.rows * p.out));
  MatMul(pool, weights, p.x.data(), 45, p.in, y.data(), p.out, Store::kOverwrite, workspace);
  const std::int64_t before = workspace.bytes();
  MatMul(pool, weights, p.x.data(), 45, p.in, y.data(), p.out, Store::kAdd, workspace);
  MatMul(pool, weights, p.x.data(), 13, p.in, y.data(), p.out, Store::kAdd, workspace);
  EXPECT_EQ(workspace.bytes(), before);
  EXPECT_GT(before, 0);
}

}  // namespace
}  // namespace maskkv::kernels
