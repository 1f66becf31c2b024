// SPDX-License-Identifier: Apache-2.0
//
// Our own tile kernels, also on machines where oneDNN's are taken instead; skipped where a limit or
// the machine leaves neither AVX2 nor FMA.
#include "kernels/gemm/block_tile.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/gemm/matmul_ref.h"
#include "kernels/gemm/panel_product.h"
#include "tests/support/closeness.h"
#include "tests/unit/kernels/gemm/gemm_problem.h"

namespace maskkv::kernels {
namespace {

using ::maskkv::testing::AllWithin;

bool Available() { return MakeBlockTile({1, 1, 1, 1, 1, DType::kBF16}) != nullptr; }

bool MachineHasThem() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return false;
#endif
}

bool LimitedTo(const std::string& isa) {
  const char* const limit = std::getenv("ONEDNN_MAX_CPU_ISA");
  return limit != nullptr && limit == isa;
}

// A tile's operands and its result, y (rows, n) in rows of ldy with a mark in the gaps.
template <typename X, typename W, typename Y>
struct Tile {
  TileShape shape;
  std::vector<X> x = std::vector<X>(static_cast<std::size_t>(shape.rows * shape.ldx));
  std::vector<W> w = std::vector<W>(static_cast<std::size_t>(shape.n * shape.k));

  static constexpr Y kMark = 77;

  // Rows [begin, begin + count) multiplied by a kernel of that height.
  std::vector<Y> Rows(std::int64_t begin, std::int64_t count) const {
    TileShape part = shape;
    part.rows = count;
    const std::unique_ptr<const TileKernel> kernel = MakeBlockTile(part);
    TileRunner runner;
    AlignedBuffer<std::byte> packed(static_cast<std::int64_t>(kernel->packed_bytes()));
    kernel->PackWeights(w.data(), shape.k, packed.data(), runner);
    std::vector<Y> y(static_cast<std::size_t>(count * shape.ldy), kMark);
    kernel->Run(x.data() + begin * shape.ldx, packed.data(), y.data(), runner);
    return y;
  }
};
using Bf16Tile = Tile<Bf16, Bf16, float>;
using Int8Tile = Tile<std::uint8_t, std::int8_t, std::int32_t>;

Bf16Tile RandomBf16(const TileShape& shape) {
  Bf16Tile tile{shape};
  const auto fill = [](std::uint64_t stream, std::vector<Bf16>& values) {
    const auto count = static_cast<std::int64_t>(values.size());
    ConvertToBf16(maskkv::testing::NormalValues(count, stream).data(), count, values.data());
  };
  fill(1, tile.x);
  fill(2, tile.w);
  return tile;
}

// A quarter of the rows and columns have nothing but the largest or the smallest bytes.
Int8Tile ExtremeInt8(const TileShape& shape) {
  Int8Tile tile{shape};
  std::mt19937_64 random(maskkv::testing::Seed());
  for (std::size_t i = 0; i < tile.x.size(); ++i) {
    const std::size_t kind = i / static_cast<std::size_t>(shape.ldx) % 4;
    tile.x[i] = kind == 0   ? std::uint8_t{255}
                : kind == 1 ? std::uint8_t{0}
                            : static_cast<std::uint8_t>(random());
  }
  for (std::size_t i = 0; i < tile.w.size(); ++i) {
    const std::size_t kind = i / static_cast<std::size_t>(shape.k) % 4;
    tile.w[i] = kind == 0   ? std::int8_t{127}
                : kind == 1 ? std::int8_t{-127}
                : kind == 2 ? static_cast<std::int8_t>(random() % 2 == 0 ? 127 : -127)
                            : static_cast<std::int8_t>(random() % 255 - 127);
  }
  return tile;
}

// Every shape that has an edge: of a pair, of a block of rows or of columns, of a length of k.
std::vector<TileShape> Shapes(DType dtype) {
  std::vector<TileShape> shapes;
  for (const std::int64_t rows : {1, 5, 6, 7, 8, 13, 64}) {
    for (const std::int64_t k : {1, 2, 3, 37, 511, 512, 513, 1025}) {
      for (const std::int64_t n : {1, 7, 15, 16, 17, 33, 48}) {
        shapes.push_back({rows, k, n, k + k % 4, n + rows % 3, dtype});
      }
    }
  }
  return shapes;
}

std::string Text(const TileShape& s) {
  return std::to_string(s.rows) + " x " + std::to_string(s.k) + " x " + std::to_string(s.n);
}

class BlockTileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!Available()) GTEST_SKIP() << "no AVX2 and FMA";
  }
};

TEST(BlockTile, ExistsWhereTheMachineAndTheLimitHaveAvx2) {
  const bool expected = MachineHasThem() && !LimitedTo("SSE41");
  for (const DType dtype : {DType::kBF16, DType::kInt8}) {
    EXPECT_EQ(MakeBlockTile({8, 8, 8, 8, 8, dtype}) != nullptr, expected);
  }
  EXPECT_EQ(MakeBlockTile({8, 8, 8, 8, 8, DType::kF32}), nullptr);
}

TEST_F(BlockTileTest, Bf16StaysWithinTheSummationErrorOfTheReference) {
  for (const TileShape& s : Shapes(DType::kBF16)) {
    const Bf16Tile tile = RandomBf16(s);
    const std::vector<float> y = tile.Rows(0, s.rows);
    std::vector<float> x, w(tile.w.size());
    for (std::int64_t row = 0; row < s.rows; ++row) {
      for (std::int64_t k = 0; k < s.k; ++k) {
        x.push_back(ToFloat(tile.x[static_cast<std::size_t>(row * s.ldx + k)]));
      }
    }
    ConvertToFloat(tile.w.data(), static_cast<std::int64_t>(w.size()), w.data());
    std::vector<double> expected(static_cast<std::size_t>(s.rows * s.n)), magnitude(expected);
    MatMulRef(x.data(), s.rows, s.k, w.data(), s.n, DType::kBF16, expected.data(),
              magnitude.data());
    std::vector<float> dense;
    for (std::int64_t row = 0; row < s.rows; ++row) {
      const auto begin = y.begin() + row * s.ldy;
      dense.insert(dense.end(), begin, begin + s.n);
      EXPECT_TRUE(std::all_of(begin + s.n, begin + s.ldy, [](float v) { return v == 77; }));
    }
    const double factor = static_cast<double>(s.k + 2) * 0x1p-24;
    ASSERT_TRUE(AllWithin<double>(dense, expected, [&](std::size_t i) {
      return factor * magnitude[i];
    })) << Text(s);
  }
}

TEST_F(BlockTileTest, Int8IsExactOverExtremeBytes) {
  for (const TileShape& s : Shapes(DType::kInt8)) {
    const Int8Tile tile = ExtremeInt8(s);
    const std::vector<std::int32_t> y = tile.Rows(0, s.rows);
    for (std::int64_t row = 0; row < s.rows; ++row) {
      for (std::int64_t column = 0; column < s.ldy; ++column) {
        std::int64_t sum = column < s.n ? 0 : Int8Tile::kMark;
        for (std::int64_t k = 0; column < s.n && k < s.k; ++k) {
          sum += tile.x[static_cast<std::size_t>(row * s.ldx + k)] *
                 tile.w[static_cast<std::size_t>(column * s.k + k)];
        }
        ASSERT_EQ(y[static_cast<std::size_t>(row * s.ldy + column)], sum)
            << Text(s) << ": row " << row << " column " << column;
      }
    }
  }
}

template <typename T>
void ExpectRowsAlone(const T& tile) {
  const TileShape& s = tile.shape;
  for (std::int64_t height = 1; height <= s.rows; ++height) {
    const std::int64_t begin = s.rows - height;
    const auto y = tile.Rows(begin, height);
    for (std::int64_t row = 0; row < height; ++row) {
      const auto alone = tile.Rows(begin + row, 1);
      ASSERT_EQ(std::memcmp(alone.data(), y.data() + row * s.ldy, alone.size() * sizeof(float)), 0)
          << "row " << row << " of " << height << " times " << s.k << " x " << s.n;
    }
  }
}

TEST_F(BlockTileTest, ARowIsTheSameBitsInEveryHeightAndPlace) {
  for (const std::int64_t k : {37, 700}) {
    ExpectRowsAlone(RandomBf16({kRowTile, k, 19, k, 19, DType::kBF16}));
    ExpectRowsAlone(ExtremeInt8({kRowTile, k, 19, k, 19, DType::kInt8}));
  }
}

TEST_F(BlockTileTest, WeightsTakeTheBytesOfTheirTypeInWholeBlocks) {
  const auto bytes = [](std::int64_t k, std::int64_t n, DType dtype) {
    return static_cast<std::int64_t>(MakeBlockTile({8, k, n, k, n, dtype})->packed_bytes());
  };
  EXPECT_EQ(bytes(4096, 64, DType::kBF16), 4096 * 64 * 2);
  EXPECT_EQ(bytes(4096, 64, DType::kInt8), 4096 * 64);
  EXPECT_EQ(bytes(513, 17, DType::kBF16), 513 * 32 * 2);
  EXPECT_EQ(bytes(513, 17, DType::kInt8), 514 * 32);
}

// What a matrix is packed as: by the limits of CMakeLists.txt each of the three ways is taken.
TEST(BlockTile, MatricesAreAsNarrowAsTheirTypeWhereAnythingMultipliesIt) {
  WorkerPool pool(1);
  for (const DType compute : {DType::kBF16, DType::kInt8}) {
    const std::unique_ptr<PanelProduct> product = PanelProduct::Plan(pool, 256, 512, compute);
    const bool ours = product->Layout().find("register blocks") != std::string::npos;
    if (LimitedTo("SSE41")) {
      EXPECT_EQ(product->storage(), DType::kF32);
      EXPECT_FALSE(ours);
    } else if (MachineHasThem()) {
      EXPECT_EQ(product->storage(), compute);
      EXPECT_TRUE(ours || !LimitedTo("AVX2"));
    }
    const auto size = static_cast<std::int64_t>(SizeOf(product->storage()));
    EXPECT_EQ(product->bytes(), 256 * 512 * size + (compute == DType::kInt8 ? 256 * 8 : 0));
  }
}

}  // namespace
}  // namespace maskkv::kernels
