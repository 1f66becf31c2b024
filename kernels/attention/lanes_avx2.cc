// SPDX-License-Identifier: Apache-2.0
// Compiled with -mavx2 -mfma (CMakeLists.txt); run only where lane_kernels.cc has found them.
#include <immintrin.h>

#include "kernels/attention/lane_sets.h"
#include "kernels/attention/lane_units.inc"

namespace maskkv::kernels {
namespace {

struct Avx2 {
  using V = __m256;
  using I = int __attribute__((vector_size(32)));
  static constexpr unsigned kWidth = 8;
  static constexpr unsigned kVectors = 2;
  static constexpr unsigned kBlock = 4;
  static MASKKV_INLINE V Load(const float* from) { return _mm256_loadu_ps(from); }
  static MASKKV_INLINE void Store(V value, float* to) { _mm256_storeu_ps(to, value); }
  static MASKKV_INLINE V Broadcast(float value) { return _mm256_set1_ps(value); }
  static MASKKV_INLINE V Fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
  // b where a is NaN.
  static MASKKV_INLINE V Max(V a, V b) { return _mm256_max_ps(a, b); }
  static MASKKV_INLINE V KeepUnlessBelow(V value, V x, V limit) {
    return _mm256_and_ps(value, _mm256_cmp_ps(x, limit, _CMP_NLT_UQ));
  }
};

}  // namespace

const LaneKernels kAvx2LaneKernels = {"avx2", Attend<Avx2>, Attend<Avx2>, PackQueries<Avx2>,
                                      Score<Avx2>};

}  // namespace maskkv::kernels
