// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm/packed_matrix.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/kernels/gemm/gemm_problem.h"

namespace maskkv::kernels {
namespace {

TEST(PackedMatrix, DefaultMadeAndMovedFromMatricesAreEmpty) {
  PackedMatrix empty;
  EXPECT_EQ(empty.out(), 0);
  EXPECT_EQ(empty.in(), 0);
  EXPECT_EQ(empty.panels(), 0);
  EXPECT_EQ(empty.bytes(), 0);
  EXPECT_TRUE(empty.TileHeights().empty());
  WorkerPool pool(1);
  PackedMatrix full = GemmProblem{1, 8, 8}.Pack(pool, DType::kF32);
  const PackedMatrix moved = std::move(full);
  EXPECT_EQ(moved.out(), 8);
  EXPECT_EQ(full.out(), 0);  // NOLINT(bugprone-use-after-move): the contract says so
}

TEST(PackedMatrix, PanelsCoverTheColumnsInOrder) {
  WorkerPool pool(2);
  for (const std::int64_t out : {1, 64, 127, 128, 129, 500}) {
    const PackedMatrix matrix = GemmProblem{0, 40, out}.Pack(pool, DType::kF32);
    EXPECT_EQ(matrix.out(), out);
    EXPECT_EQ(matrix.in(), 40);
    std::int64_t end = 0;
    for (std::int64_t panel = 0; panel < matrix.panels(); ++panel) {
      EXPECT_EQ(matrix.PanelBegin(panel), end);
      end = matrix.PanelEnd(panel);
      EXPECT_GT(end, matrix.PanelBegin(panel));
      EXPECT_LE(end - matrix.PanelBegin(panel), kMaxPanelWidth);
    }
    EXPECT_EQ(end, out);
  }
}

TEST(PackedMatrix, TileHeightsAscendFromTheBaseHeight) {
  WorkerPool pool(1);
  const PackedMatrix matrix = GemmProblem{0, 33, 65}.Pack(pool, DType::kBF16);
  ASSERT_FALSE(matrix.TileHeights().empty());
  EXPECT_GE(matrix.TileHeights().front(), 1);
  EXPECT_TRUE(std::ranges::is_sorted(matrix.TileHeights()));
  for (const std::int64_t height : matrix.TileHeights()) {
    EXPECT_EQ(height % matrix.TileHeights().front(), 0);
  }
  EXPECT_LE(matrix.TileHeights().back(), kRowTile);
}

TEST(PackedMatrix, StackedPartsEqualOneMatrixOfTheirRows) {
  const GemmProblem p{11, 50, 200};
  WorkerPool pool(2);
  const std::vector<MatrixSource> parts{{p.w.data(), DType::kF32, 100},
                                        {p.w.data() + 100 * p.in, DType::kF32, 1},
                                        {p.w.data() + 101 * p.in, DType::kF32, 99}};
  for (const DType compute : {DType::kF32, DType::kBF16, DType::kInt8}) {
    const PackedMatrix stacked = PackedMatrix::Pack(pool, parts, p.in, compute);
    EXPECT_EQ(stacked.dtype(), compute);
    EXPECT_EQ(RowsOf(pool, stacked, p, 0, 11), RowsOf(pool, p.Pack(pool, compute), p, 0, 11));
  }
}

TEST(PackedMatrix, Bf16SourcesAreWidenedExactlyAndEqualRoundedF32Sources) {
  GemmProblem p{11, 50, 70};
  WorkerPool pool(2);
  std::vector<Bf16> narrow(p.w.size());
  ConvertToBf16(p.w.data(), static_cast<std::int64_t>(p.w.size()), narrow.data());
  const MatrixSource source{narrow.data(), DType::kBF16, p.out};
  for (const DType compute : {DType::kF32, DType::kBF16, DType::kInt8}) {
    const PackedMatrix from_bf16 = PackedMatrix::Pack(pool, {&source, 1}, p.in, compute);
    GemmProblem rounded = p;
    RoundToBf16InPlace(rounded.w.data(), static_cast<std::int64_t>(rounded.w.size()));
    EXPECT_EQ(RowsOf(pool, from_bf16, p, 0, 11),
              RowsOf(pool, rounded.Pack(pool, compute), p, 0, 11));
  }
}

TEST(PackedMatrix, BorrowedBytesOfAnEqualLayoutGiveTheSameBits) {
  for (const auto& [in, out] :
       {std::pair<std::int64_t, std::int64_t>{50, 200}, {1, 1}, {9000, 300}, {64, 600}}) {
    const GemmProblem p{5, in, out};
    const MatrixSource source{p.w.data(), DType::kF32, out};
    WorkerPool pool(2);
    for (const DType compute : {DType::kF32, DType::kBF16}) {
      const PackedMatrix own = p.Pack(pool, compute);
      PackedMatrix packed = PackedMatrix::Plan(pool, out, in, compute);
      EXPECT_EQ(packed.packed(), nullptr);
      EXPECT_EQ(packed.bytes(), own.bytes());
      AlignedBuffer<std::byte> bytes(packed.bytes());
      packed.PackInto(pool, {&source, 1}, bytes.data());
      PackedMatrix borrower = PackedMatrix::Plan(pool, out, in, compute);
      EXPECT_EQ(borrower.Layout(), own.Layout());
      borrower.Borrow(packed.packed());
      EXPECT_EQ(RowsOf(pool, packed, p, 0, 5), RowsOf(pool, own, p, 0, 5));
      EXPECT_EQ(RowsOf(pool, borrower, p, 0, 5), RowsOf(pool, own, p, 0, 5));
    }
  }
}

TEST(PackedMatrix, LayoutsTellShapesAndTypesApart) {
  WorkerPool pool(1);
  std::set<std::string> layouts;
  for (const DType compute : {DType::kF32, DType::kBF16}) {
    for (const auto& [out, in] : {std::pair{64, 64}, {64, 65}, {65, 64}, {128, 32}, {300, 9000}}) {
      layouts.insert(PackedMatrix::Plan(pool, out, in, compute).Layout());
    }
  }
  EXPECT_EQ(layouts.size(), 10U);
}

TEST(PackedMatrixDeathTest, PartsOfOtherRowsThanPlannedAreACallersMistake) {
  WorkerPool pool(1);
  const std::vector<float> w(64);
  const MatrixSource source{w.data(), DType::kF32, 8};
  PackedMatrix matrix = PackedMatrix::Plan(pool, 9, 8, DType::kF32);
  AlignedBuffer<std::byte> bytes(matrix.bytes());
  EXPECT_DEATH(matrix.PackInto(pool, {&source, 1}, bytes.data()), "other rows than planned");
}

TEST(PackedMatrixDeathTest, AnEmptyMatrixIsACallersMistake) {
  WorkerPool pool(1);
  EXPECT_DEATH(PackedMatrix::Pack(pool, {}, 8, DType::kF32), "an empty matrix");
  const MatrixSource none{nullptr, DType::kF32, 0};
  EXPECT_DEATH(PackedMatrix::Pack(pool, {&none, 1}, 8, DType::kF32), "an empty part");
}

}  // namespace
}  // namespace maskkv::kernels
