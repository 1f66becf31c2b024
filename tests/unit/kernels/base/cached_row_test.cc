// SPDX-License-Identifier: Apache-2.0
#include "kernels/base/cached_row.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

namespace maskkv::kernels {
namespace {

struct Quantised {
  std::vector<std::int8_t> q;
  float scale;
};

// One byte more than the row has, to see that it stays.
Quantised Quantise(const std::vector<float>& x) {
  Quantised row{std::vector<std::int8_t>(x.size() + 1, 77), 0};
  row.scale = QuantiseCachedRow(x.data(), std::ssize(x), row.q.data());
  EXPECT_EQ(row.q.back(), 77);
  row.q.pop_back();
  return row;
}

std::vector<float> Read(const Quantised& row) {
  std::vector<float> x(row.q.size());
  DequantiseRow(row.q.data(), row.scale, std::ssize(row.q), x.data());
  return x;
}

// The header's formula in double; the bound that it promises.
void ExpectKept(const std::vector<float>& x) {
  const Quantised row = Quantise(x);
  float largest = 0;
  for (const float element : x) largest = std::max(largest, std::abs(element));
  EXPECT_EQ(row.scale, std::max(largest / 127.0F, kLeastScale));
  const std::vector<float> read = Read(row);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double quotient = x[i] / row.scale;  // rounded to f32, as in the kernel
    EXPECT_EQ(row.q[i], std::nearbyint(quotient)) << i;
    EXPECT_LE(std::abs(row.q[i]), 127) << i;
    EXPECT_EQ(read[i], static_cast<float>(row.q[i]) * row.scale) << i;
    EXPECT_LE(std::abs(static_cast<double>(read[i]) - static_cast<double>(x[i])),
              (0.5 + 0x1p-15) * static_cast<double>(row.scale))
        << i;
  }
}

TEST(CachedRow, StaysWithinHalfAScaleForEveryWidthAndMagnitude) {
  std::mt19937_64 random(3);
  std::normal_distribution<float> normal;
  for (const std::int64_t width : {1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 64, 80, 100, 128, 257}) {
    for (const int exponent : {-149, -130, -126, -120, -60, 0, 10, 100, 120}) {
      std::vector<float> x(static_cast<std::size_t>(width));
      for (float& element : x) {
        element = std::ldexp(normal(random), exponent);
      }
      ExpectKept(x);
    }
  }
}

TEST(CachedRow, IsExactForMultiplesOfAPowerOfTwo) {
  std::vector<float> x;
  for (int i = -127; i <= 127; ++i) x.push_back(std::ldexp(static_cast<float>(i), -5));
  const Quantised row = Quantise(x);
  EXPECT_EQ(row.scale, std::ldexp(1.0F, -5));
  EXPECT_EQ(Read(row), x);
}

TEST(CachedRow, RoundsTiesToEven) {
  const Quantised row = Quantise({127, 0.5F, 1.5F, 2.5F, -0.5F, -1.5F});
  EXPECT_EQ(row.q, (std::vector<std::int8_t>{127, 0, 2, 2, 0, -2}));
}

TEST(CachedRow, ReadsARowOfZerosAsZeros) {
  const std::vector<float> zeros(19, 0.0F);
  const Quantised row = Quantise(zeros);
  EXPECT_EQ(row.scale, kLeastScale);
  EXPECT_EQ(Read(row), zeros);
}

TEST(CachedRow, KeepsTheLargestAndTheLeastNumbers) {
  ExpectKept({std::ldexp(1.0F, 127), std::ldexp(-1.0F, 126), 1});
  ExpectKept({std::numeric_limits<float>::denorm_min(), 0, -std::numeric_limits<float>::min()});
  ExpectKept({127 * kLeastScale, 3 * kLeastScale});
}

TEST(CachedRow, ReadsARowWithAnElementThatIsNoNumberAsNoNumbers) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float bad : {std::nanf(""), -std::nanf(""), infinity, -infinity}) {
    for (const std::size_t at : {0U, 5U, 39U}) {
      std::vector<float> x(40, 2.0F);
      x[at] = bad;
      const Quantised row = Quantise(x);
      EXPECT_FALSE(std::isfinite(row.scale));
      for (const float element : Read(row)) EXPECT_TRUE(std::isnan(element));
    }
  }
}

// What docs/kv_dtypes.md says.
TEST(CachedRow, TakesLittleMoreThanHalfOfBf16AtAWidthOf128) {
  constexpr std::int64_t kPosition = 4;
  const auto pair = [](DType dtype) { return 2 * CachedRowBytes(dtype, 128) + kPosition; };
  EXPECT_EQ(pair(DType::kInt8), 268);
  EXPECT_EQ(pair(DType::kBF16), 516);
  EXPECT_EQ(pair(DType::kF32), 1028);
}

}  // namespace
}  // namespace maskkv::kernels
