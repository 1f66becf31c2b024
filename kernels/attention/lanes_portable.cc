// SPDX-License-Identifier: Apache-2.0
// Vectors of four by the compiler's own types: SSE2 on x86-64, whatever there is elsewhere.
#include "kernels/attention/lane_sets.h"
#include "kernels/attention/lane_units.inc"

namespace maskkv::kernels {
namespace {

struct Portable {
  using V = Float4;
  using I = int __attribute__((vector_size(16)));
  static constexpr unsigned kWidth = 4;
  static constexpr unsigned kVectors = 2;
  static constexpr unsigned kBlock = 4;
  static MASKKV_INLINE V Load(const float* from) { return Load4(from); }
  static MASKKV_INLINE void Store(V value, float* to) { Store4(value, to); }
  static MASKKV_INLINE V Broadcast(float value) { return V{value, value, value, value}; }
  // Two roundings: an emulated FMA would cost a call for each element.
  static MASKKV_INLINE V Fma(V a, V b, V c) { return a * b + c; }
  // b where a is NaN.
  static MASKKV_INLINE V Max(V a, V b) {
    const I greater = a > b;
    return reinterpret_cast<V>((reinterpret_cast<I>(a) & greater) |
                               (reinterpret_cast<I>(b) & ~greater));
  }
  static MASKKV_INLINE V KeepUnlessBelow(V value, V x, V limit) {
    const I below = x < limit;
    return reinterpret_cast<V>(reinterpret_cast<I>(value) & ~below);
  }
};

}  // namespace

const LaneKernels kPortableLaneKernels = {"portable", Attend<Portable>, Attend<Portable>,
                                          PackQueries<Portable>, Score<Portable>};

}  // namespace maskkv::kernels
