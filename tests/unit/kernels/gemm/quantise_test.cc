// SPDX-License-Identifier: Apache-2.0
//
// Int8 products are whole numbers: they equal the twin's exactly, with every instruction set that
// oneDNN may be limited to (see CMakeLists.txt).
#include "kernels/gemm/quantise.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/gemm/matmul_ref.h"
#include "tests/support/closeness.h"
#include "tests/unit/kernels/gemm/gemm_problem.h"

namespace maskkv::kernels {
namespace {

using ::maskkv::testing::AllWithin;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();

// Ordinary, extreme and broken rows of n values.
std::vector<std::vector<float>> Rows(std::int64_t n) {
  const auto size = static_cast<std::size_t>(n);
  std::vector<std::vector<float>> rows{maskkv::testing::NormalValues(n, 3),
                                       maskkv::testing::NormalValues(n, 4, 1e30F),
                                       maskkv::testing::NormalValues(n, 5, 1e-30F)};
  for (const float value :
       {0.0F, -0.0F, 1.0F, -3.0F, kLargest, -kLargest, kLeastMagnitude,
        std::nextafter(kLeastMagnitude, 0.0F), 1e-45F, kNan, kInfinity, -kInfinity}) {
    rows.emplace_back(size, value);
    rows.push_back(rows.front());
    rows.back().back() = value;
  }
  // Halves between two integers go to the even one.
  std::vector<float> ties(size);
  for (std::size_t i = 0; i < size; ++i) ties[i] = static_cast<float>(i % 120) - 59.5F;
  ties[0] = 127.0F;
  rows.push_back(ties);
  return rows;
}

TEST(QuantiseRow, GivesTheTwinsIntegersAndScaleInEveryStorage) {
  for (const std::int64_t n : {1, 3, 37, 64, 300}) {
    for (const std::vector<float>& row : Rows(n)) {
      const Int8RowRef expected = QuantiseRowRef(row.data(), n);
      std::vector<std::int8_t> plain(row.size());
      std::vector<std::uint8_t> shifted(row.size());
      std::vector<float> wide(row);
      const float scale = QuantiseRow(row.data(), n, plain.data());
      EXPECT_TRUE(scale == expected.scale || (std::isnan(scale) && std::isnan(expected.scale)));
      EXPECT_TRUE(scale == QuantiseRow(row.data(), n, shifted.data()) || std::isnan(scale));
      EXPECT_TRUE(scale == QuantiseRow(wide.data(), n, wide.data()) || std::isnan(scale));
      for (std::size_t i = 0; i < row.size(); ++i) {
        ASSERT_EQ(plain[i], expected.q[i]) << "value " << i << " of " << n << ": " << row[i];
        ASSERT_EQ(shifted[i] - kInt8Offset, expected.q[i]);
        ASSERT_EQ(wide[i], static_cast<float>(expected.q[i]));
        ASSERT_LE(std::abs(plain[i]), kLargestInt8);
      }
    }
  }
}

// y = x W^T by one sum of whole numbers an element; also what it may differ from the product of the
// values that were not quantised.
struct Twin {
  explicit Twin(const GemmProblem& p) {
    std::vector<Int8RowRef> columns;
    for (std::int64_t i = 0; i < p.out; ++i) {
      columns.push_back(QuantiseRowRef(p.w.data() + i * p.in, p.in));
    }
    for (std::int64_t row = 0; row < p.rows; ++row) {
      const float* const x = p.x.data() + row * p.in;
      const Int8RowRef quantised = QuantiseRowRef(x, p.in);
      for (std::int64_t i = 0; i < p.out; ++i) {
        AddElement(x, quantised, p.w.data() + i * p.in, columns[static_cast<std::size_t>(i)]);
      }
    }
  }

  std::vector<float> y;
  std::vector<double> exact, tolerance;

 private:
  void AddElement(const float* x, const Int8RowRef& qx, const float* w, const Int8RowRef& qw) {
    std::int64_t sum = 0;
    double product = 0, error = 0;
    // A value is off by half a scale, and by the rounding of what it is multiplied with.
    constexpr double kHalf = 0.5 + 127 * 0x1p-22;
    for (std::size_t k = 0; k < qx.q.size(); ++k) {
      sum += qx.q[k] * qw.q[k];
      product += static_cast<double>(x[k]) * w[k];
      const double x_error = kHalf * qx.scale, w_error = kHalf * qw.scale;
      error += std::abs(static_cast<double>(x[k])) * w_error +
               std::abs(static_cast<double>(w[k])) * x_error + x_error * w_error;
    }
    y.push_back(static_cast<float>(static_cast<std::int32_t>(sum)) * qw.scale * qx.scale);
    exact.push_back(product);
    tolerance.push_back(error + 4 * 0x1p-24 * std::abs(product));
  }
};

// The same number, or both not a number.
void ExpectSame(const std::vector<float>& actual, const std::vector<float>& expected,
                const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) {
    if (std::isnan(actual[i]) && std::isnan(expected[i])) continue;
    ASSERT_EQ(actual[i], expected[i]) << what << ": element " << i;
  }
}

std::string Text(const GemmProblem& p) {
  return std::to_string(p.rows) + " x " + std::to_string(p.in) + " x " + std::to_string(p.out);
}

TEST(Int8Product, EqualsTheTwinExactlyAndTheRealProductWithinTheRoundingOfItsInputs) {
  WorkerPool pool(2);
  for (const std::int64_t rows : {1, 9, 33}) {
    for (const std::int64_t in : {1, 3, 37, 259, 1025, 2050, 4097}) {
      for (const std::int64_t out : {1, 3, 65, 130}) {
        if (rows * in * out > 2'000'000) continue;
        const GemmProblem p{rows, in, out};
        const PackedMatrix weights = p.Pack(pool, DType::kInt8);
        const std::vector<float> y = RowsOf(pool, weights, p, 0, rows);
        const Twin twin(p);
        ExpectSame(y, twin.y, Text(p));
        EXPECT_TRUE(AllWithin<double>(y, twin.exact, [&](std::size_t i) {
          return twin.tolerance[i];
        })) << Text(p);
      }
    }
  }
}

TEST(Int8Product, IsExactWhereEveryProductIsTheLargest) {
  WorkerPool pool(2);
  for (const std::int64_t in : {4, 64, 1024, 4100}) {
    GemmProblem p{4, in, 4};
    for (std::int64_t row = 0; row < 4; ++row) {
      for (std::int64_t k = 0; k < in; ++k) {
        // All the largest, all the smallest, in turns, and in turns of two.
        const bool negative = row == 1 || (row == 2 && k % 2 == 1) || (row == 3 && k % 4 >= 2);
        const auto at = static_cast<std::size_t>(row * in + k);
        p.x[at] = negative ? -2.0F : 2.0F;
        p.w[at] = negative ? -0.5F : 0.5F;
      }
    }
    ExpectSame(RowsOf(pool, p.Pack(pool, DType::kInt8), p, 0, 4), Twin(p).y, Text(p));
  }
}

TEST(Int8Product, SpecialRowsDoWhatTheHeaderSaysAndLeaveOthersAlone) {
  WorkerPool pool(2);
  const std::int64_t in = 70;
  const std::vector<std::vector<float>> special = Rows(in);
  GemmProblem p{static_cast<std::int64_t>(special.size()), in, 66};
  for (std::size_t row = 0; row < special.size(); ++row) {
    std::copy(special[row].begin(), special[row].end(),
              p.x.begin() + static_cast<std::ptrdiff_t>(row) * in);
  }
  std::fill_n(p.w.begin() + 5 * in, in, 0.0F);
  p.w[6 * in + 1] = kInfinity;
  const PackedMatrix weights = p.Pack(pool, DType::kInt8);
  const std::vector<float> y = RowsOf(pool, weights, p, 0, p.rows);
  const Twin twin(p);
  ExpectSame(y, twin.y, "special rows");
  for (std::size_t i = 0; i < y.size(); ++i) {
    const std::vector<float>& row = special[i / 66];
    const bool finite = std::ranges::all_of(row, [](float v) { return std::isfinite(v); });
    const bool zero =
        std::ranges::all_of(row, [](float v) { return std::abs(v) < kLeastMagnitude; });
    if (!finite || i % 66 == 6) {
      EXPECT_TRUE(std::isnan(y[i])) << i;
    } else if (zero || i % 66 == 5) {
      EXPECT_EQ(y[i], 0.0F) << i;
    }
  }
  for (std::int64_t row = 0; row < p.rows; ++row) {
    const std::vector<float> alone = RowsOf(pool, weights, p, row, 1);
    ExpectSame(alone, {y.begin() + row * 66, y.begin() + (row + 1) * 66}, "alone");
  }
}

}  // namespace
}  // namespace maskkv::kernels
