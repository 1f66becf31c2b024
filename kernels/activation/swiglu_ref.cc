// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "kernels/activation/swiglu.h"

namespace maskkv::kernels {

void SwiGluRef(const float* gate, const float* up, std::int64_t rows, std::int64_t ld_in,
               std::int64_t width, float* y, std::int64_t ldy) {
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t i = 0; i < width; ++i) {
      const double z = gate[row * ld_in + i];
      const double silu = z / (1.0 + std::exp(-z));
      y[row * ldy + i] = static_cast<float>(silu * up[row * ld_in + i]);
    }
  }
}

}  // namespace maskkv::kernels
