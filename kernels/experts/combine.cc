// SPDX-License-Identifier: Apache-2.0
#include "kernels/experts/combine.h"

#include "kernels/base/multiversion.h"
#include "kernels/base/require.h"

namespace maskkv::kernels {
namespace {

MASKKV_MULTIVERSION void AddWeighted(const float* x, std::int64_t width, float weight, float* out) {
  for (std::int64_t i = 0; i < width; ++i) out[i] += weight * x[i];
}

}  // namespace

void AddWeightedRows(const float* x, std::int64_t ldx, std::int64_t width,
                     std::span<const std::int32_t> rows, const float* weights, float* out,
                     std::int64_t ldo) {
  MASKKV_REQUIRE(width >= 0 && ldx >= width && ldo >= width, "shape");
  for (std::size_t i = 0; i < rows.size(); ++i) {
    AddWeighted(x + static_cast<std::int64_t>(i) * ldx, width, weights[i], out + rows[i] * ldo);
  }
}

}  // namespace maskkv::kernels
