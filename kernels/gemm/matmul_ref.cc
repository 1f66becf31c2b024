// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm/matmul_ref.h"

#include <cmath>

namespace maskkv::kernels {
namespace {

double Rounded(float value, DType compute) {
  return compute == DType::kBF16 ? ToFloat(ToBf16(value)) : value;
}

}  // namespace

void MatMulRef(const float* x, std::int64_t rows, std::int64_t in, const float* w, std::int64_t out,
               DType compute, double* y, double* magnitude) {
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t column = 0; column < out; ++column) {
      double sum = 0.0;
      double absolute = 0.0;
      for (std::int64_t k = 0; k < in; ++k) {
        const double product =
            Rounded(x[row * in + k], compute) * Rounded(w[column * in + k], compute);
        sum += product;
        absolute += std::abs(product);
      }
      y[row * out + column] = sum;
      magnitude[row * out + column] = absolute;
    }
  }
}

}  // namespace maskkv::kernels
