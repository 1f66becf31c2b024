// SPDX-License-Identifier: Apache-2.0
//
// The work units of lane_kernels.h over the tiles of lane_tiles.h. Internal to the lanes_*.cc
// sources. A block of lanes is cut into groups of kVectors vectors, the rest into single vectors;
// the packed queries of a group are contiguous, at first_lane * head_dim.
#ifndef MASKKV_KERNELS_ATTENTION_LANE_UNITS_H_
#define MASKKV_KERNELS_ATTENTION_LANE_UNITS_H_

#include <cstdint>

#include "kernels/attention/lane_kernels.h"
#include "kernels/attention/lane_tiles.h"
#include "kernels/attention/lane_transpose.h"

namespace maskkv::kernels {
namespace {

// Calls body.operator()<vectors>(first_lane) for every lane group of [0, padded).
template <class Isa, class Body>
MASKKV_INLINE void ForEachGroup(std::int64_t padded, const Body& body) {
  std::int64_t lane = 0;
  for (; lane + Isa::kVectors * Isa::kWidth <= padded; lane += Isa::kVectors * Isa::kWidth) {
    body.template operator()<Isa::kVectors>(lane);
  }
  for (; lane < padded; lane += Isa::kWidth) body.template operator()<1>(lane);
}

// pointers[i] = the first element of stacked row begin + i.
template <class T>
MASKKV_INLINE void StackedRows(T* base, std::int64_t ld, std::int64_t query_rows,
                               std::int64_t head_dim, std::int64_t begin, std::int64_t count,
                               T** pointers) {
  std::int64_t head = begin / query_rows;
  std::int64_t row = begin % query_rows;
  for (std::int64_t i = 0; i < count; ++i) {
    pointers[i] = base + row * ld + head * head_dim;
    if (++row == query_rows) {
      row = 0;
      ++head;
    }
  }
}

template <class Isa>
void PackQueries(const float* q, std::int64_t ldq, std::int64_t query_rows, std::int64_t begin,
                 std::int64_t end, std::int64_t head_dim, float* packed) {
  const float scale = kLog2E / __builtin_sqrtf(static_cast<float>(head_dim));
  ForEachGroup<Isa>(PaddedLanes(end - begin), [&]<unsigned kVecs>(std::int64_t lane) {
    constexpr unsigned kLanes = kVecs * Isa::kWidth;
    const float* rows[kLanes];
    const std::int64_t left = end - begin - lane;
    const std::int64_t count = left < 0 ? 0 : left < kLanes ? left : kLanes;
    StackedRows(q, ldq, query_rows, head_dim, begin + lane, count, rows);
    RowsToLanes(rows, count, kLanes, head_dim, scale, packed + lane * head_dim);
  });
}

// dst (count, head_dim) = rows [first, first + count) of a segment as f32.
MASKKV_INLINE void CopyRows(const KeySegment& segment, const void* data, std::int64_t first,
                            std::int64_t count, std::int64_t head_dim, float* __restrict dst) {
  const std::int64_t stride = segment.stride;
  if (segment.bf16) {
    const std::uint16_t* __restrict from = static_cast<const std::uint16_t*>(data) + first * stride;
    for (std::int64_t j = 0; j < count; ++j) {
      for (std::int64_t c = 0; c < head_dim; ++c) {
        dst[j * head_dim + c] =
            __builtin_bit_cast(float, static_cast<std::uint32_t>(from[j * stride + c]) << 16);
      }
    }
  } else {
    const float* __restrict from = static_cast<const float*>(data) + first * stride;
    for (std::int64_t j = 0; j < count; ++j) {
      for (std::int64_t c = 0; c < head_dim; ++c) dst[j * head_dim + c] = from[j * stride + c];
    }
  }
}

// Rows [first, first + count) of a segment as contiguous f32: in place if they lie so already. Rows
// of a wide matrix are copied because their power-of-two distance maps them to few cache sets.
MASKKV_INLINE const float* RowsOf(const KeySegment& segment, const void* data, std::int64_t first,
                                  std::int64_t count, std::int64_t head_dim, float* copy) {
  if (!segment.bf16 && segment.stride == head_dim) {
    return static_cast<const float*>(data) + first * head_dim;
  }
  CopyRows(segment, data, first, count, head_dim, copy);
  return copy;
}

// As RowsOf, over the concatenation of the unit's two segments; kKeys says keys or values.
template <bool kKeys>
MASKKV_INLINE const float* TileOf(const AttendUnit& unit, std::int64_t first, std::int64_t count,
                                  float* copy) {
  const KeySegment& cached = unit.segments[0];
  const KeySegment& own = unit.segments[1];
  const void* cached_data = kKeys ? cached.k : cached.v;
  const void* own_data = kKeys ? own.k : own.v;
  if (first + count <= cached.rows) {
    return RowsOf(cached, cached_data, first, count, unit.head_dim, copy);
  }
  if (first >= cached.rows) {
    return RowsOf(own, own_data, first - cached.rows, count, unit.head_dim, copy);
  }
  const std::int64_t head = cached.rows - first;
  CopyRows(cached, cached_data, first, head, unit.head_dim, copy);
  CopyRows(own, own_data, 0, count - head, unit.head_dim, copy + head * unit.head_dim);
  return copy;
}

// out = sums / weight sums, rows again; lse = log of the weight sums in the scale of the scores.
template <class Isa>
MASKKV_INLINE void FinishUnit(const AttendUnit& unit, const float* max, float* sum,
                              const float* sums_of_values) {
  constexpr float kLn2 = 0.693147180559945309F;
  const std::int64_t rows = unit.end - unit.begin;
  for (std::int64_t l = 0; l < rows; ++l) {
    if (unit.lse != nullptr) {
      unit.lse[unit.begin + l] = (max[l] + __builtin_log2f(sum[l])) * kLn2;
    }
    sum[l] = 1.0F / sum[l];
  }
  ForEachGroup<Isa>(PaddedLanes(rows), [&]<unsigned kVecs>(std::int64_t lane) {
    constexpr unsigned kLanes = kVecs * Isa::kWidth;
    float* out[kLanes];
    const std::int64_t left = rows - lane;
    const std::int64_t count = left < 0 ? 0 : left < kLanes ? left : kLanes;
    StackedRows(unit.out, unit.ldo, unit.query_rows, unit.head_dim, unit.begin + lane, count, out);
    LanesToRows(sums_of_values + lane * unit.head_dim, count, kLanes, unit.head_dim, sum + lane,
                out);
  });
}

template <class Isa>
void Attend(const AttendUnit& unit) {
  const std::int64_t dims = unit.head_dim;
  const std::int64_t padded = PaddedLanes(unit.end - unit.begin);
  const std::int64_t keys = unit.segments[0].rows + unit.segments[1].rows;
  float* q = unit.scratch;
  float* out = q + kQueryBlock * dims;
  float* max = out + kQueryBlock * dims;
  float* sum = max + kQueryBlock;
  float* rescale = sum + kQueryBlock;
  float* s = rescale + kQueryBlock;
  float* key_copy = s + 2 * kKeyTile * kSumLanes;
  float* value_copy = key_copy + kKeyTile * dims;
  PackQueries<Isa>(unit.q, unit.ldq, unit.query_rows, unit.begin, unit.end, dims, q);
  for (std::int64_t i = 0; i < padded * dims; ++i) out[i] = 0.0F;
  for (std::int64_t l = 0; l < padded; ++l) {
    max[l] = kLowest;
    sum[l] = 0.0F;
  }
  for (std::int64_t first = 0; first < keys; first += kKeyTile) {
    const std::int64_t count = keys - first < kKeyTile ? keys - first : kKeyTile;
    const float* k = TileOf<true>(unit, first, count, key_copy);
    const float* v = TileOf<false>(unit, first, count, value_copy);
    ForEachGroup<Isa>(padded, [&]<unsigned kVecs>(std::int64_t lane) {
      ScoreTile<Isa, kVecs>(q + lane * dims, k, count, dims, s);
      SoftmaxTile<Isa, kVecs>(count, s, max + lane, sum + lane, rescale);
      OutputTile<Isa, kVecs>(s, v, count, dims, rescale, out + lane * dims);
    });
  }
  FinishUnit<Isa>(unit, max, sum, out);
}

// Adds 2^(s - lse) of a lane group to the partial sums, (keys, kSumLanes).
template <class Isa, unsigned kVecs>
MASKKV_INLINE void AddWeights(const float* s, const float* lse, std::int64_t first_lane,
                              std::int64_t keys, float* partial) {
  using V = typename Isa::V;
  V shift[kVecs];
  for (unsigned v = 0; v < kVecs; ++v) shift[v] = Isa::Load(lse + v * Isa::kWidth);
  for (std::int64_t j = 0; j < keys; ++j) {
#pragma GCC unroll 4
    for (unsigned v = 0; v < kVecs; ++v) {
      float* to = partial + j * kSumLanes + (first_lane + v * Isa::kWidth) % kSumLanes;
      const V weight = Exp2<Isa>(Isa::Load(s + (j * kVecs + v) * Isa::kWidth) - shift[v]);
      Isa::Store(Isa::Load(to) + weight, to);
    }
  }
}

template <class Isa>
void Score(const ScoreUnit& unit) {
  const std::int64_t dims = unit.head_dim;
  float* partial = unit.scratch;
  float* s = partial + kKeyTile * kSumLanes;
  float* key_copy = s + 2 * kKeyTile * kSumLanes;
  for (std::int64_t first = 0; first < unit.segment.rows; first += kKeyTile) {
    const std::int64_t left = unit.segment.rows - first;
    const std::int64_t count = left < kKeyTile ? left : kKeyTile;
    const float* k = RowsOf(unit.segment, unit.segment.k, first, count, dims, key_copy);
    for (std::int64_t i = 0; i < count * kSumLanes; ++i) partial[i] = 0.0F;
    ForEachGroup<Isa>(unit.lanes, [&]<unsigned kVecs>(std::int64_t lane) {
      ScoreTile<Isa, kVecs>(unit.packed_q + lane * dims, k, count, dims, s);
      AddWeights<Isa, kVecs>(s, unit.lse + lane, lane, count, partial);
    });
    for (std::int64_t j = 0; j < count; ++j) {
      float* sums = partial + j * kSumLanes;
      for (std::int64_t half = kSumLanes / 2; half > 0; half /= 2) {
        for (std::int64_t l = 0; l < half; ++l) sums[l] += sums[l + half];
      }
      unit.scores[first + j] = sums[0];
    }
  }
}

}  // namespace
}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_ATTENTION_LANE_UNITS_H_
