// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "kernels/rope/rope.h"

namespace maskkv::kernels {

void ApplyRopeRef(double theta, std::int64_t head_dim, const std::int32_t* positions, float* x,
                  std::int64_t rows, std::int64_t ldx, std::int64_t heads) {
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t head = 0; head < heads; ++head) {
      float* const h = x + row * ldx + head * head_dim;
      for (std::int64_t i = 0; i < head_dim / 2; ++i) {
        const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(head_dim);
        const double angle = positions[row] / std::pow(theta, exponent);
        const double x1 = h[i];
        const double x2 = h[i + head_dim / 2];
        h[i] = static_cast<float>(x1 * std::cos(angle) - x2 * std::sin(angle));
        h[i + head_dim / 2] = static_cast<float>(x1 * std::sin(angle) + x2 * std::cos(angle));
      }
    }
  }
}

}  // namespace maskkv::kernels
