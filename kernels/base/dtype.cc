// SPDX-License-Identifier: Apache-2.0
#include "kernels/base/dtype.h"

namespace maskkv::kernels {

void RoundToBf16InPlace(float* values, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) values[i] = ToFloat(ToBf16(values[i]));
}

void ConvertToBf16(const float* src, std::int64_t n, Bf16* dst) {
  for (std::int64_t i = 0; i < n; ++i) dst[i] = ToBf16(src[i]);
}

void ConvertToFloat(const Bf16* src, std::int64_t n, float* dst) {
  for (std::int64_t i = 0; i < n; ++i) dst[i] = ToFloat(src[i]);
}

}  // namespace maskkv::kernels
