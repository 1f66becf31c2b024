// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "kernels/norm/rms_norm.h"

namespace maskkv::kernels {

void RmsNormRef(const float* x, std::int64_t rows, std::int64_t ldx, std::int64_t width,
                const float* weight, float eps, float* y, std::int64_t ldy) {
  for (std::int64_t row = 0; row < rows; ++row) {
    double sum = 0.0;
    for (std::int64_t i = 0; i < width; ++i) sum += double{x[row * ldx + i]} * x[row * ldx + i];
    const double root = std::sqrt(sum / static_cast<double>(width) + eps);
    for (std::int64_t i = 0; i < width; ++i) {
      y[row * ldy + i] = static_cast<float>(x[row * ldx + i] / root * weight[i]);
    }
  }
}

}  // namespace maskkv::kernels
