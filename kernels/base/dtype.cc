// SPDX-License-Identifier: Apache-2.0
#include "kernels/base/dtype.h"

#include "kernels/base/multiversion.h"

namespace maskkv::kernels {

MASKKV_MULTIVERSION void RoundToBf16InPlace(float* values, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) values[i] = ToFloat(ToBf16(values[i]));
}

MASKKV_MULTIVERSION void ConvertToBf16(const float* src, std::int64_t n, Bf16* dst) {
  for (std::int64_t i = 0; i < n; ++i) dst[i] = ToBf16(src[i]);
}

MASKKV_MULTIVERSION void ConvertToFloat(const Bf16* src, std::int64_t n, float* dst) {
  for (std::int64_t i = 0; i < n; ++i) dst[i] = ToFloat(src[i]);
}

}  // namespace maskkv::kernels
