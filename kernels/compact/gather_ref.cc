// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "kernels/base/cached_row.h"
#include "kernels/compact/gather.h"

namespace maskkv::kernels {

void GatherRowsRef(const float* rows, std::int64_t ld, std::int64_t head_dim,
                   std::span<const std::int32_t> kept, DType dtype, void* out, float* scales) {
  std::int64_t at = 0;
  for (std::size_t i = 0; i < kept.size(); ++i) {
    const float* const row = rows + kept[i] * ld;
    float scale = kLeastScale;
    for (std::int64_t c = 0; c < head_dim; ++c) scale = std::max(scale, std::abs(row[c]) / 127);
    if (dtype == DType::kInt8) scales[i] = scale;
    for (std::int64_t c = 0; c < head_dim; ++c, ++at) {
      if (dtype == DType::kF32) {
        static_cast<float*>(out)[at] = row[c];
      } else if (dtype == DType::kBF16) {
        static_cast<Bf16*>(out)[at] = ToBf16(row[c]);
      } else {
        static_cast<std::int8_t*>(out)[at] =
            static_cast<std::int8_t>(std::nearbyint(row[c] / scale));
      }
    }
  }
}

}  // namespace maskkv::kernels
