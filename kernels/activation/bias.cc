// SPDX-License-Identifier: Apache-2.0
#include "kernels/activation/bias.h"

#include "kernels/base/multiversion.h"
#include "kernels/base/require.h"

namespace maskkv::kernels {
namespace {

MASKKV_MULTIVERSION void AddRow(const float* bias, std::int64_t width, float* x) {
  for (std::int64_t i = 0; i < width; ++i) x[i] += bias[i];
}

}  // namespace

void AddBias(const float* bias, std::int64_t rows, std::int64_t width, float* x, std::int64_t ldx) {
  MASKKV_REQUIRE(width >= 0 && ldx >= width, "shape");
  for (std::int64_t row = 0; row < rows; ++row) AddRow(bias, width, x + row * ldx);
}

}  // namespace maskkv::kernels
