// SPDX-License-Identifier: Apache-2.0
//
// Register-blocked pieces of the attention kernels over a vector type: a tile of scores, its
// softmax, a tile of the output. Internal to the lanes_*.cc sources, each compiled for its
// instruction set, hence internal linkage. `Isa` supplies V (kWidth floats) and I (as many int32),
// kVectors (vectors of a full lane group), kBlock (keys or dimensions of a register block: kBlock *
// kVectors accumulators), Load, Store, Broadcast, Fma, Max and KeepUnlessBelow.
#ifndef MASKKV_KERNELS_ATTENTION_LANE_TILES_H_
#define MASKKV_KERNELS_ATTENTION_LANE_TILES_H_

#include <cstdint>

#include "kernels/attention/lane_kernels.h"
#include "kernels/attention/lane_transpose.h"

namespace maskkv::kernels {
namespace {

constexpr float kLowest = -3.402823466e+38F;
constexpr float kLog2E = 1.44269504088896341F;

// 2^x for x <= 0: exactly 1 for 0, zero below -126, NaN for NaN, else relative error < 2^-22.
// x = n + f, |f| <= 1/2: adding 1.5 * 2^23 + 127 rounds x to n and leaves n + 127, which is the
// exponent field of 2^n, in the low bits. 2^f = 1 + f p(f), p of degree 5 through the Chebyshev
// nodes, relative error 1e-8 in f32 coefficients; the rest is the rounding of seven operations.
template <class Isa>
MASKKV_INLINE typename Isa::V Exp2(typename Isa::V x) {
  using V = typename Isa::V;
  using I = typename Isa::I;
  const V magic = Isa::Broadcast(12583039.0F);
  const V shifted = x + magic;
  const V f = x - (shifted - magic);
  V poly = Isa::Broadcast(1.54531634e-4F);
  poly = Isa::Fma(poly, f, Isa::Broadcast(1.33908633e-3F));
  poly = Isa::Fma(poly, f, Isa::Broadcast(9.61808302e-3F));
  poly = Isa::Fma(poly, f, Isa::Broadcast(5.55035695e-2F));
  poly = Isa::Fma(poly, f, Isa::Broadcast(2.40226507e-1F));
  poly = Isa::Fma(poly, f, Isa::Broadcast(6.93147182e-1F));
  poly = Isa::Fma(poly, f, Isa::Broadcast(1.0F));
  const V power = reinterpret_cast<V>(reinterpret_cast<I>(shifted) << 23);
  return Isa::KeepUnlessBelow(poly * power, x, Isa::Broadcast(-126.0F));
}

// s(j, l) = sum_c q(c, l) k(j, c) for kKeys keys; q is (dims, lanes), lanes = kVecs * Isa::kWidth.
template <class Isa, unsigned kVecs, unsigned kKeys>
MASKKV_INLINE void ScoreBlock(const float* q, const float* k, std::int64_t dims, float* s) {
  using V = typename Isa::V;
  V sum[kKeys][kVecs] = {};
  for (std::int64_t c = 0; c < dims; ++c) {
    V query[kVecs];
#pragma GCC unroll 4
    for (unsigned v = 0; v < kVecs; ++v) query[v] = Isa::Load(q + (c * kVecs + v) * Isa::kWidth);
#pragma GCC unroll 16
    for (unsigned j = 0; j < kKeys; ++j) {
      const V key = Isa::Broadcast(k[j * dims + c]);
#pragma GCC unroll 4
      for (unsigned v = 0; v < kVecs; ++v) sum[j][v] = Isa::Fma(key, query[v], sum[j][v]);
    }
  }
#pragma GCC unroll 16
  for (unsigned j = 0; j < kKeys; ++j) {
#pragma GCC unroll 4
    for (unsigned v = 0; v < kVecs; ++v) Isa::Store(sum[j][v], s + (j * kVecs + v) * Isa::kWidth);
  }
}

// s(j, l) for every key of a tile; k is (keys, dims), contiguous.
template <class Isa, unsigned kVecs>
MASKKV_INLINE void ScoreTile(const float* q, const float* k, std::int64_t keys, std::int64_t dims,
                             float* s) {
  constexpr unsigned kLanes = kVecs * Isa::kWidth;
  std::int64_t j = 0;
  for (; j + Isa::kBlock <= keys; j += Isa::kBlock) {
    ScoreBlock<Isa, kVecs, Isa::kBlock>(q, k + j * dims, dims, s + j * kLanes);
  }
  for (; j + 2 <= keys; j += 2) ScoreBlock<Isa, kVecs, 2>(q, k + j * dims, dims, s + j * kLanes);
  if (j < keys) ScoreBlock<Isa, kVecs, 1>(q, k + j * dims, dims, s + j * kLanes);
}

// One step of the running softmax: scores become weights 2^(s - max) for the new maximum, `rescale`
// is what everything summed so far must be multiplied by.
template <class Isa, unsigned kVecs>
MASKKV_INLINE void SoftmaxTile(std::int64_t keys, float* s, float* max, float* sum,
                               float* rescale) {
  using V = typename Isa::V;
  constexpr std::int64_t kW = Isa::kWidth;
  V new_max[kVecs];
  V new_sum[kVecs];
  for (unsigned v = 0; v < kVecs; ++v) new_max[v] = Isa::Load(max + v * kW);
  for (std::int64_t j = 0; j < keys; ++j) {
#pragma GCC unroll 4
    for (unsigned v = 0; v < kVecs; ++v) {
      new_max[v] = Isa::Max(Isa::Load(s + (j * kVecs + v) * kW), new_max[v]);
    }
  }
  for (unsigned v = 0; v < kVecs; ++v) {
    const V factor = Exp2<Isa>(Isa::Load(max + v * kW) - new_max[v]);
    new_sum[v] = Isa::Load(sum + v * kW) * factor;
    Isa::Store(factor, rescale + v * kW);
    Isa::Store(new_max[v], max + v * kW);
  }
  for (std::int64_t j = 0; j < keys; ++j) {
#pragma GCC unroll 4
    for (unsigned v = 0; v < kVecs; ++v) {
      float* at = s + (j * kVecs + v) * kW;
      const V weight = Exp2<Isa>(Isa::Load(at) - new_max[v]);
      Isa::Store(weight, at);
      new_sum[v] = new_sum[v] + weight;
    }
  }
  for (unsigned v = 0; v < kVecs; ++v) Isa::Store(new_sum[v], sum + v * kW);
}

// out(c, l) = out(c, l) * rescale(l) + sum_j p(j, l) value(j, c) for kDims dimensions.
template <class Isa, unsigned kVecs, unsigned kDims>
MASKKV_INLINE void OutputBlock(const float* p, const float* value, std::int64_t keys,
                               std::int64_t dims, const float* rescale, float* out) {
  using V = typename Isa::V;
  V sum[kDims][kVecs];
#pragma GCC unroll 16
  for (unsigned c = 0; c < kDims; ++c) {
#pragma GCC unroll 4
    for (unsigned v = 0; v < kVecs; ++v) {
      sum[c][v] =
          Isa::Load(out + (c * kVecs + v) * Isa::kWidth) * Isa::Load(rescale + v * Isa::kWidth);
    }
  }
  for (std::int64_t j = 0; j < keys; ++j) {
    V weight[kVecs];
#pragma GCC unroll 4
    for (unsigned v = 0; v < kVecs; ++v) weight[v] = Isa::Load(p + (j * kVecs + v) * Isa::kWidth);
#pragma GCC unroll 16
    for (unsigned c = 0; c < kDims; ++c) {
      const V element = Isa::Broadcast(value[j * dims + c]);
#pragma GCC unroll 4
      for (unsigned v = 0; v < kVecs; ++v) sum[c][v] = Isa::Fma(element, weight[v], sum[c][v]);
    }
  }
#pragma GCC unroll 16
  for (unsigned c = 0; c < kDims; ++c) {
#pragma GCC unroll 4
    for (unsigned v = 0; v < kVecs; ++v) Isa::Store(sum[c][v], out + (c * kVecs + v) * Isa::kWidth);
  }
}

// OutputBlock over every dimension; value is (keys, dims), contiguous.
template <class Isa, unsigned kVecs>
MASKKV_INLINE void OutputTile(const float* p, const float* value, std::int64_t keys,
                              std::int64_t dims, const float* rescale, float* out) {
  constexpr unsigned kLanes = kVecs * Isa::kWidth;
  std::int64_t c = 0;
  for (; c + Isa::kBlock <= dims; c += Isa::kBlock) {
    OutputBlock<Isa, kVecs, Isa::kBlock>(p, value + c, keys, dims, rescale, out + c * kLanes);
  }
  for (; c + 2 <= dims; c += 2) {
    OutputBlock<Isa, kVecs, 2>(p, value + c, keys, dims, rescale, out + c * kLanes);
  }
  if (c < dims) OutputBlock<Isa, kVecs, 1>(p, value + c, keys, dims, rescale, out + c * kLanes);
}

}  // namespace
}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_ATTENTION_LANE_TILES_H_
