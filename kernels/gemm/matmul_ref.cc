// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm/matmul_ref.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace maskkv::kernels {
namespace {

// A row of n values as the product sees them.
void RoundRow(const float* row, std::int64_t n, DType compute, std::vector<double>& rounded) {
  rounded.assign(row, row + n);
  if (compute == DType::kF32) return;
  if (compute == DType::kBF16) {
    for (double& value : rounded) value = ToFloat(ToBf16(static_cast<float>(value)));
    return;
  }
  const Int8RowRef integers = QuantiseRowRef(row, n);
  for (std::size_t i = 0; i < rounded.size(); ++i) {
    rounded[i] = static_cast<double>(integers.q[i]) * integers.scale;
  }
}

}  // namespace

Int8RowRef QuantiseRowRef(const float* row, std::int64_t n) {
  Int8RowRef result;
  float largest = 0;
  bool finite = true;
  for (std::int64_t i = 0; i < n; ++i) {
    finite = finite && std::isfinite(row[i]);
    largest = std::max(largest, std::abs(row[i]));
  }
  result.q.assign(static_cast<std::size_t>(n), 0);
  if (!finite) {
    result.scale = std::numeric_limits<float>::quiet_NaN();
  } else if (largest / 127 >= std::numeric_limits<float>::min()) {
    result.scale = largest / 127;
    const float inverse = 127 / largest;
    for (std::int64_t i = 0; i < n; ++i) {
      result.q[static_cast<std::size_t>(i)] =
          static_cast<std::int64_t>(std::rint(row[i] * inverse));
    }
  }
  return result;
}

void MatMulRef(const float* x, std::int64_t rows, std::int64_t in, const float* w, std::int64_t out,
               DType compute, double* y, double* magnitude) {
  std::vector<std::vector<double>> columns(static_cast<std::size_t>(out));
  for (std::int64_t column = 0; column < out; ++column) {
    RoundRow(w + column * in, in, compute, columns[static_cast<std::size_t>(column)]);
  }
  std::vector<double> rounded;
  for (std::int64_t row = 0; row < rows; ++row) {
    RoundRow(x + row * in, in, compute, rounded);
    for (std::int64_t column = 0; column < out; ++column) {
      const std::vector<double>& weights = columns[static_cast<std::size_t>(column)];
      double sum = 0.0;
      double absolute = 0.0;
      for (std::size_t k = 0; k < weights.size(); ++k) {
        const double product = rounded[k] * weights[k];
        sum += product;
        absolute += std::abs(product);
      }
      y[row * out + column] = sum;
      magnitude[row * out + column] = absolute;
    }
  }
}

}  // namespace maskkv::kernels
