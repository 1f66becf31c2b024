// SPDX-License-Identifier: Apache-2.0
#include "kernels/base/dtype.h"

#include "kernels/base/multiversion.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace maskkv::kernels {
namespace {

#if defined(__x86_64__)
__attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16"))) void ConvertByInstruction(
    const float* src, std::int64_t n, Bf16* dst) {
  std::int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    const __m512bh pair =
        _mm512_cvtne2ps_pbh(_mm512_loadu_ps(src + i + 16), _mm512_loadu_ps(src + i));
    _mm512_storeu_si512(dst + i, reinterpret_cast<const __m512i&>(pair));
  }
  for (; i < n; i += 16) {
    const auto lanes = static_cast<__mmask16>(n - i >= 16 ? 0xffff : (1 << (n - i)) - 1);
    const __m256bh half = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(lanes, src + i));
    _mm256_mask_storeu_epi16(dst + i, lanes, reinterpret_cast<const __m256i&>(half));
  }
}

bool HasInstruction() {
  static const bool has = __builtin_cpu_supports("avx512bf16") != 0 &&
                          __builtin_cpu_supports("avx512bw") != 0 &&
                          __builtin_cpu_supports("avx512vl") != 0;
  return has;
}
#endif

}  // namespace

MASKKV_MULTIVERSION void RoundToBf16InPlace(float* values, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) values[i] = ToFloat(ToBf16(values[i]));
}

MASKKV_MULTIVERSION void ConvertToBf16(const float* src, std::int64_t n, Bf16* dst) {
  for (std::int64_t i = 0; i < n; ++i) dst[i] = ToBf16(src[i]);
}

void ConvertProductInput(const float* src, std::int64_t n, Bf16* dst) {
#if defined(__x86_64__)
  if (HasInstruction()) return ConvertByInstruction(src, n, dst);
#endif
  ConvertToBf16(src, n, dst);
}

MASKKV_MULTIVERSION void ConvertToFloat(const Bf16* src, std::int64_t n, float* dst) {
  for (std::int64_t i = 0; i < n; ++i) dst[i] = ToFloat(src[i]);
}

}  // namespace maskkv::kernels
