// SPDX-License-Identifier: Apache-2.0
#include "kernels/activation/swiglu.h"

#include "kernels/base/elementary.h"
#include "kernels/base/multiversion.h"
#include "kernels/base/require.h"

namespace maskkv::kernels {
namespace {

MASKKV_MULTIVERSION void SwiGluRow(const float* gate, const float* up, std::int64_t width,
                                   float* y) {
  for (std::int64_t i = 0; i < width; ++i) y[i] = gate[i] / (1.0F + Exp(-gate[i])) * up[i];
}

}  // namespace

void SwiGlu(const float* gate, const float* up, std::int64_t rows, std::int64_t ld_in,
            std::int64_t width, float* y, std::int64_t ldy) {
  MASKKV_REQUIRE(width >= 0 && ld_in >= width && ldy >= width, "shape");
  for (std::int64_t row = 0; row < rows; ++row) {
    SwiGluRow(gate + row * ld_in, up + row * ld_in, width, y + row * ldy);
  }
}

}  // namespace maskkv::kernels
