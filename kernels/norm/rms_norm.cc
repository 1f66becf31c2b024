// SPDX-License-Identifier: Apache-2.0
#include "kernels/norm/rms_norm.h"

#include <cmath>

#include "kernels/base/multiversion.h"
#include "kernels/base/require.h"

namespace maskkv::kernels {
namespace {

// Sum of squares over kLanes lanes, folded by halves; the tail goes to the first lanes.
MASKKV_MULTIVERSION float SumOfSquares(const float* x, std::int64_t width) {
  float lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    for (std::int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += x[i + lane] * x[i + lane];
  }
  for (std::int64_t lane = 0; i < width; ++i, ++lane) lanes[lane] += x[i] * x[i];
  for (std::int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (std::int64_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  }
  return lanes[0];
}

MASKKV_MULTIVERSION void Scale(const float* x, std::int64_t width, float scale, const float* weight,
                               float* y) {
  for (std::int64_t i = 0; i < width; ++i) y[i] = x[i] * scale * weight[i];
}

}  // namespace

void RmsNorm(const float* x, std::int64_t rows, std::int64_t ldx, std::int64_t width,
             const float* weight, float eps, float* y, std::int64_t ldy) {
  MASKKV_REQUIRE(width >= 1 && ldx >= width && ldy >= width && eps >= 0.0F, "shape");
  for (std::int64_t row = 0; row < rows; ++row) {
    const float mean = SumOfSquares(x + row * ldx, width) / static_cast<float>(width);
    const float scale = 1.0F / std::sqrt(mean + eps);
    Scale(x + row * ldx, width, scale, weight, y + row * ldy);
  }
}

}  // namespace maskkv::kernels
