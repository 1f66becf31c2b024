// SPDX-License-Identifier: Apache-2.0
// Compiled with -mavx512bf16 (CMakeLists.txt); run only where lane_kernels.cc has found it.
#include <immintrin.h>

#include "kernels/attention/lane_avx512.inc"
#include "kernels/attention/lane_pairs.inc"
#include "kernels/attention/lane_sets.h"
#include "kernels/attention/lane_units.inc"

namespace maskkv::kernels {
namespace {

// Rows of bf16, `stride` elements apart.
struct Bf16Rows {
  const std::uint16_t* data;
  std::int64_t stride;
};

// The first `count` of sixteen lanes, all of them from sixteen on.
MASKKV_INLINE __mmask16 FirstLanes(std::int64_t count) {
  return static_cast<__mmask16>(count >= 16 ? 0xffff : (1 << count) - 1);
}

// to (padded) = the dims elements of a row, then zeros. padded is dims or one more.
MASKKV_INLINE void NarrowRow(const float* from, std::int64_t dims, std::int64_t padded,
                             std::uint16_t* to) {
  for (std::int64_t c = 0; c < padded; c += 16) {
    const __mmask16 read = dims > c ? FirstLanes(dims - c) : __mmask16{0};
    const __m256bh row = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(read, from + c));
    _mm256_mask_storeu_epi16(to + c, FirstLanes(padded - c), reinterpret_cast<const __m256i&>(row));
  }
}
MASKKV_INLINE void NarrowRow(const std::uint16_t* from, std::int64_t dims, std::int64_t padded,
                             std::uint16_t* to) {
  for (std::int64_t c = 0; c < padded; c += 16) {
    const __mmask16 read = dims > c ? FirstLanes(dims - c) : __mmask16{0};
    _mm256_mask_storeu_epi16(to + c, FirstLanes(padded - c),
                             _mm256_maskz_loadu_epi16(read, from + c));
  }
}

// Each element times the scale of its row, in two roundings.
MASKKV_INLINE void NarrowRow(const std::int8_t* from, float scale, std::int64_t dims,
                             std::int64_t padded, std::uint16_t* to) {
  for (std::int64_t c = 0; c < padded; c += 16) {
    const __mmask16 read = dims > c ? FirstLanes(dims - c) : __mmask16{0};
    const __m512i whole = _mm512_maskz_cvtepi8_epi32(read, _mm_maskz_loadu_epi8(read, from + c));
    // Lanes that are not read stay zero, whatever the scale.
    const __m512 row =
        _mm512_maskz_mul_ps(read, _mm512_maskz_cvtepi32_ps(read, whole), _mm512_set1_ps(scale));
    const __m256bh narrow = _mm512_cvtneps_pbh(row);
    _mm256_mask_storeu_epi16(to + c, FirstLanes(padded - c),
                             reinterpret_cast<const __m256i&>(narrow));
  }
}

// to (count, padded) = rows [first, first + count) of a segment. scales: of int8 rows, else null.
MASKKV_INLINE void NarrowRows(const KeySegment& segment, const void* data, const float* scales,
                              std::int64_t first, std::int64_t count, std::int64_t dims,
                              std::int64_t padded, std::uint16_t* to) {
  for (std::int64_t j = 0; j < count; ++j, to += padded) {
    const std::int64_t at = (first + j) * segment.stride;
    if (scales != nullptr) {
      NarrowRow(static_cast<const std::int8_t*>(data) + at, scales[first + j], dims, padded, to);
    } else if (segment.bf16) {
      NarrowRow(static_cast<const std::uint16_t*>(data) + at, dims, padded, to);
    } else {
      NarrowRow(static_cast<const float*>(data) + at, dims, padded, to);
    }
  }
}

// Keys (or values) [first, first + count) of the unit as whole pairs: in place if they lie so
// already, else copied into `copy` (kKeyTile * padded).
template <bool kKeys>
MASKKV_INLINE Bf16Rows NarrowTile(const AttendUnit& unit, std::int64_t first, std::int64_t count,
                                  std::uint16_t* copy) {
  const std::int64_t dims = unit.head_dim;
  const std::int64_t padded = (dims + 1) / 2 * 2;
  const KeySegment& cached = unit.segments[0];
  const KeySegment& own = unit.segments[1];
  const void* cached_data = kKeys ? cached.k : cached.v;
  const void* own_data = kKeys ? own.k : own.v;
  const float* scales = kKeys ? cached.k_scales : cached.v_scales;
  std::int64_t head = cached.rows - first;
  head = head < 0 ? 0 : head < count ? head : count;
  if (head == count && cached.bf16 && padded == dims) {
    return {static_cast<const std::uint16_t*>(cached_data) + first * cached.stride, cached.stride};
  }
  NarrowRows(cached, cached_data, scales, first, head, dims, padded, copy);
  NarrowRows(own, own_data, nullptr, first + head - cached.rows, count - head, dims, padded,
             copy + head * padded);
  return {copy, padded};
}

// Asks for the own rows among the keys from `next` on in the second-level cache, as many of a tile
// as lanes [lane, lane + lanes) are of `padded`: rows of a wide matrix lie pages apart, and each
// would be waited for when its tile comes. (The processor sees kept pairs coming by itself.)
MASKKV_INLINE void PrefetchOwnRows(const AttendUnit& unit, std::int64_t next, std::int64_t lane,
                                   std::int64_t lanes, std::int64_t padded) {
  const KeySegment& own = unit.segments[1];
  const std::int64_t first = next - unit.segments[0].rows;
  if (first < 0 || first >= own.rows) return;
  const std::int64_t count = own.rows - first < kKeyTile ? own.rows - first : kKeyTile;
  const auto* k = static_cast<const float*>(own.k);
  const auto* v = static_cast<const float*>(own.v);
  const std::int64_t end = first + count * (lane + lanes) / padded;
  for (std::int64_t j = first + count * lane / padded; j < end; ++j) {
    for (std::int64_t c = 0; c < unit.head_dim; c += 16) {
      _mm_prefetch(k + j * own.stride + c, _MM_HINT_T1);
      _mm_prefetch(v + j * own.stride + c, _MM_HINT_T1);
    }
  }
}

// pairs (count / 2 rounded up, dims) = (row 2 j, row 2 j + 1), zero where there is no such row.
MASKKV_INLINE void PairRows(const Bf16Rows& rows, std::int64_t count, std::int64_t dims,
                            float* pairs) {
  for (std::int64_t j = 0; j < count; j += 2, pairs += dims) {
    const std::uint16_t* first = rows.data + j * rows.stride;
    const std::uint16_t* second = first + rows.stride;
    for (std::int64_t c = 0; c < dims; c += 16) {
      const __mmask16 lanes = FirstLanes(dims - c);
      const __mmask16 both = j + 1 < count ? lanes : __mmask16{0};
      _mm512_mask_storeu_epi32(pairs + c, lanes,
                               PairOf(_mm256_maskz_loadu_epi16(lanes, first + c),
                                      _mm256_maskz_loadu_epi16(both, second + c)));
    }
  }
}

// The queries of the unit, not scaled: a lane group at first_lane * pairs, (pairs, lanes) of pairs
// of bf16. rows: kVectors * kWidth * pairs.
MASKKV_INLINE void PackQueryPairs(const AttendUnit& unit, float* rows, float* packed) {
  const std::int64_t dims = unit.head_dim;
  const std::int64_t pairs = (dims + 1) / 2;
  ForEachGroup<Avx512>(PaddedLanes(unit.end - unit.begin), [&]<unsigned kVecs>(std::int64_t lane) {
    constexpr unsigned kLanes = kVecs * Avx512::kWidth;
    const float* from[kLanes];
    const float* narrow[kLanes];
    const std::int64_t left = unit.end - unit.begin - lane;
    const std::int64_t count = left < 0 ? 0 : left < kLanes ? left : kLanes;
    StackedRows(unit.q, unit.ldq, unit.query_rows, dims, unit.begin + lane, count, from);
    for (std::int64_t l = 0; l < count; ++l) {
      narrow[l] = rows + l * pairs;
      NarrowRow(from[l], dims, 2 * pairs, reinterpret_cast<std::uint16_t*>(rows + l * pairs));
    }
    RowsToLanes(narrow, count, kLanes, pairs, Moved{}, packed + lane * pairs);
  });
}

}  // namespace

void AttendBf16Avx512(const AttendUnit& unit) {
  const std::int64_t dims = unit.head_dim;
  const std::int64_t pairs = (dims + 1) / 2;
  const std::int64_t padded = PaddedLanes(unit.end - unit.begin);
  const std::int64_t keys = unit.segments[0].rows + unit.segments[1].rows;
  const float scale = kLog2E / __builtin_sqrtf(static_cast<float>(dims));
  float* q = unit.scratch;
  float* out = q + kQueryBlock * pairs;
  float* max = out + kQueryBlock * dims;
  float* sum = max + kQueryBlock;
  float* rescale = sum + kQueryBlock;
  float* s = rescale + kQueryBlock;
  float* value_pairs = s + 2 * kKeyTile * kSumLanes;
  float* key_copy = value_pairs + kKeyTile / 2 * dims;
  float* value_copy = key_copy + kKeyTile * pairs;
  PackQueryPairs(unit, key_copy, q);
  for (std::int64_t i = 0; i < padded * dims; ++i) out[i] = 0.0F;
  for (std::int64_t l = 0; l < padded; ++l) {
    max[l] = kLowest;
    sum[l] = 0.0F;
  }
  for (std::int64_t first = 0; first < keys; first += kKeyTile) {
    const std::int64_t count = keys - first < kKeyTile ? keys - first : kKeyTile;
    const Bf16Rows k =
        NarrowTile<true>(unit, first, count, reinterpret_cast<std::uint16_t*>(key_copy));
    PairRows(NarrowTile<false>(unit, first, count, reinterpret_cast<std::uint16_t*>(value_copy)),
             count, dims, value_pairs);
    ForEachGroup<Avx512>(padded, [&]<unsigned kVecs>(std::int64_t lane) {
      PrefetchOwnRows(unit, first + kKeyTile, lane, kVecs * Avx512::kWidth, padded);
      ScorePairTile<kVecs>(q + lane * pairs, k.data, k.stride, count, pairs, s);
      SoftmaxPairTile<kVecs>(count, scale, s, max + lane, sum + lane, rescale);
      OutputPairTile<kVecs>(s, value_pairs, count, dims, rescale, out + lane * dims);
    });
  }
  for (std::int64_t l = 0; l < padded; ++l) max[l] *= scale;
  FinishUnit<Avx512>(unit, max, sum, out);
}

}  // namespace maskkv::kernels
