// SPDX-License-Identifier: Apache-2.0
//
// A row's product is the same bits whatever else is in the call. Run once for every instruction set
// that oneDNN may choose (see CMakeLists.txt).
#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>
#include <random>

#include "kernels/gemm/matmul.h"
#include "tests/unit/kernels/gemm/gemm_problem.h"

namespace maskkv::kernels {
namespace {

struct Shape {
  std::int64_t in, out;
};

class GemmInvarianceTest : public ::testing::TestWithParam<std::tuple<DType, Shape>> {};

// Fails unless rows of `y` are rows [begin, ...) of `whole`, bit for bit.
void ExpectRows(const std::vector<float>& whole, const std::vector<float>& y, std::int64_t begin,
                std::int64_t out, const char* what) {
  const float* const expected = whole.data() + begin * out;
  for (std::size_t i = 0; i < y.size(); ++i) {
    ASSERT_EQ(std::memcmp(&y[i], expected + i, sizeof(float)), 0)
        << what << ": row " << i / static_cast<std::size_t>(out) << " column "
        << i % static_cast<std::size_t>(out) << " is " << y[i] << ", in the whole call "
        << expected[i];
  }
}

TEST_P(GemmInvarianceTest, ARowDoesNotDependOnTheOtherRowsItsPlaceOrTheThreads) {
  const auto [compute, shape] = GetParam();
  const GemmProblem p{300, shape.in, shape.out};
  WorkerPool one(1);
  WorkerPool two(2);
  WorkerPool four(4);
  const PackedMatrix weights = p.Pack(two, compute);
  std::printf("tile heights:");
  for (const std::int64_t height : weights.TileHeights()) {
    std::printf(" %d", static_cast<int>(height));
  }
  std::printf("\n");
  const std::vector<float> whole = RowsOf(one, weights, p, 0, p.rows);
  ExpectRows(whole, RowsOf(two, weights, p, 0, p.rows), 0, p.out, "two threads");
  ExpectRows(whole, RowsOf(four, weights, p, 0, p.rows), 0, p.out, "four threads");
  const PackedMatrix again = p.Pack(four, compute);
  ExpectRows(whole, RowsOf(one, again, p, 0, 64), 0, p.out, "packed by four threads");
  for (std::int64_t row = 0; row < p.rows; row += 37) {
    ExpectRows(whole, RowsOf(one, weights, p, row, 1), row, p.out, "alone");
  }
  std::mt19937_64 random(maskkv::testing::Seed());
  for (int trial = 0; trial < 20; ++trial) {
    const auto begin = static_cast<std::int64_t>(random() % 299);
    const auto rows = static_cast<std::int64_t>(random() % 130) + 1;
    ExpectRows(whole, RowsOf(two, weights, p, begin, std::min(rows, p.rows - begin)), begin, p.out,
               "some rows");
  }
}

TEST_P(GemmInvarianceTest, EveryTileHeightGivesTheSameBits) {
  const auto [compute, shape] = GetParam();
  const GemmProblem p{kRowTile, shape.in, shape.out};
  WorkerPool pool(1);
  const PackedMatrix weights = p.Pack(pool, compute);
  const std::vector<float> whole = RowsOf(pool, weights, p, 0, p.rows);
  for (const std::int64_t height : weights.TileHeights()) {
    for (std::int64_t begin = 0; begin + height <= p.rows; begin += 7) {
      ExpectRows(whole, RowsOf(pool, weights, p, begin, height), begin, p.out, "a tile");
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, GemmInvarianceTest,
    ::testing::Combine(::testing::Values(DType::kF32, DType::kBF16, DType::kInt8),
                       ::testing::Values(Shape{1, 1}, Shape{37, 3}, Shape{259, 259},
                                         Shape{512, 512}, Shape{4096, 100}, Shape{9000, 70})));

}  // namespace
}  // namespace maskkv::kernels
