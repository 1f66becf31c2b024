// SPDX-License-Identifier: Apache-2.0
// Compiled with -mavx512f (CMakeLists.txt); run only where lane_kernels.cc has found it.
#include <immintrin.h>

#include "kernels/attention/lane_sets.h"
#include "kernels/attention/lane_units.inc"

namespace maskkv::kernels {
namespace {

struct Avx512 {
  using V = __m512;
  using I = int __attribute__((vector_size(64)));
  static constexpr unsigned kWidth = 16;
  static constexpr unsigned kVectors = 2;
  static constexpr unsigned kBlock = 8;
  static MASKKV_INLINE V Load(const float* from) { return _mm512_loadu_ps(from); }
  static MASKKV_INLINE void Store(V value, float* to) { _mm512_storeu_ps(to, value); }
  static MASKKV_INLINE V Broadcast(float value) { return _mm512_set1_ps(value); }
  static MASKKV_INLINE V Fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
  // b where a is NaN.
  // (The masked form: the plain one trips a false -Wmaybe-uninitialized of GCC 12.)
  static MASKKV_INLINE V Max(V a, V b) { return _mm512_maskz_max_ps(0xffff, a, b); }
  static MASKKV_INLINE V KeepUnlessBelow(V value, V x, V limit) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, limit, _CMP_NLT_UQ), value);
  }
};

}  // namespace

const LaneKernels kAvx512LaneKernels = {"avx512", Attend<Avx512>, PackQueries<Avx512>,
                                        Score<Avx512>};

}  // namespace maskkv::kernels
