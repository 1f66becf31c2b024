// SPDX-License-Identifier: Apache-2.0
//
// The inner kernels of attention, one set an instruction set, and the choice between them. Internal
// to kernels/attention; tests use it to run every set that the machine has.
//
// Layout. Queries are the lanes of a vector: a block of query rows is stored transposed (head_dim,
// lanes), a tile of scores is (keys, lanes), the running output (head_dim, lanes). Then a key or
// value element is one broadcast, keys and values are read as they lie, and the softmax (maximum,
// exp, sum over keys) is element-wise. The query rows of all heads that share a KV head are
// stacked: stacked row s is row s % query_rows of query head first + s / query_rows.
//
// Equal bits. Every element is a chain of operations in an order that names no vector width: scores
// are chains of FMAs over head_dim, outputs chains of FMAs over keys, exp2 a fixed polynomial, so
// the AVX-512 and AVX2 sets agree bit for bit, as do rows in full and in partial vectors. The
// portable set rounds products (no FMA there) and differs within the error bound.
#ifndef MASKKV_KERNELS_ATTENTION_LANE_KERNELS_H_
#define MASKKV_KERNELS_ATTENTION_LANE_KERNELS_H_

#include <cstdint>
#include <vector>

namespace maskkv::kernels {

// Plain structs and raw pointers only: the sources of the sets are compiled for instruction sets
// that the machine may lack, so they must not instantiate inline functions that other sources
// share.

// Rows of keys and values of one KV head; (rows, head_dim), rows `stride` elements apart, f32, bf16
// or, where there are scales, int8 with a scale a row.
struct KeySegment {
  const void* k;
  const void* v;
  std::int64_t rows;
  std::int64_t stride;
  bool bf16;
  const float* k_scales = nullptr;
  const float* v_scales = nullptr;
};

// Keys that a tile of scores spans; tiles are cut from the first key of the first segment.
inline constexpr std::int64_t kKeyTile = 64;
// Stacked query rows of a work unit, at most; units begin at multiples of any smaller number, which
// changes no bit of the result.
inline constexpr std::int64_t kQueryBlock = 256;
// Lanes over which mask scores are summed: partial sum l takes the stacked rows s = l mod 16.
inline constexpr std::int64_t kSumLanes = 16;

// One work unit of RaggedAttention: stacked rows [begin, end) of one KV head, all its keys.
struct AttendUnit {
  const float* q;  // row 0 of the group's first query head
  std::int64_t ldq;
  std::int64_t query_rows;
  float* out;  // as q
  std::int64_t ldo;
  float* lse;  // (stacked rows) of this KV head, or null
  std::int64_t begin;
  std::int64_t end;  // end - begin <= kQueryBlock
  std::int64_t head_dim;
  KeySegment segments[2];  // cached, own; either may have no rows, not both
  float* scratch;          // AttendScratch(head_dim) floats, 64-byte aligned
};

// One work unit of MaskQueryScores: keys [0, segment.rows) against every stacked mask row.
struct ScoreUnit {
  const float* packed_q;  // what pack_queries wrote
  const float* lse;       // (padded lanes) base-2, +inf in the padding
  std::int64_t lanes;     // padded
  std::int64_t head_dim;
  KeySegment segment;  // v unused
  float* scores;       // (segment.rows)
  float* scratch;      // ScoreScratch(head_dim) floats, 64-byte aligned
};

struct LaneKernels {
  const char* name;
  void (*attend)(const AttendUnit& unit);
  // The same where q, k and v are bf16 numbers (AttentionShape::products): their products by the
  // bf16 unit if the set has one, else `attend` itself.
  void (*attend_bf16)(const AttendUnit& unit);
  // Writes the stacked rows [begin, end) of q scaled by log2(e) / sqrt(head_dim) and transposed as
  // `attend` and `score` want them, zeros in the padding: head_dim * PaddedLanes(end - begin)
  // floats.
  void (*pack_queries)(const float* q, std::int64_t ldq, std::int64_t query_rows,
                       std::int64_t begin, std::int64_t end, std::int64_t head_dim, float* packed);
  void (*score)(const ScoreUnit& unit);
};

// Stacked rows rounded up to whole sums of lanes.
constexpr std::int64_t PaddedLanes(std::int64_t rows) {
  return (rows + kSumLanes - 1) / kSumLanes * kSumLanes;
}

// Floats of scratch a unit needs.
constexpr std::int64_t AttendScratch(std::int64_t head_dim) {
  return 2 * kQueryBlock * (head_dim + 1) + 2 * kKeyTile * (head_dim + kSumLanes) + 3 * kQueryBlock;
}
constexpr std::int64_t ScoreScratch(std::int64_t head_dim) {
  return kKeyTile * (head_dim + 3 * kSumLanes);
}

// The sets that this machine can run, widest first; never empty.
std::vector<const LaneKernels*> SupportedLaneKernels();
// The first of them, chosen once.
const LaneKernels& BestLaneKernels();

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_ATTENTION_LANE_KERNELS_H_
