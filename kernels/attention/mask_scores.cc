// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention/mask_scores.h"

#include <algorithm>
#include <limits>

#include "kernels/attention/lane_kernels.h"
#include "kernels/base/require.h"

namespace maskkv::kernels {
namespace {

// Keys of a work unit: enough to pay for claiming it, few enough to share out a short prompt.
constexpr std::int64_t kKeysPerUnit = 4 * kKeyTile;

// The lse of a KV head's stacked mask rows in base 2, +inf (no weight) in the padding.
void PackLse(const float* lse, std::int64_t stacked, float* packed) {
  constexpr float kLog2E = 1.44269504088896341F;
  for (std::int64_t s = 0; s < stacked; ++s) packed[s] = lse[s] * kLog2E;
  std::fill(packed + stacked, packed + PaddedLanes(stacked),
            std::numeric_limits<float>::infinity());
}

}  // namespace

void MaskQueryScores(WorkerPool& pool, const AttentionShape& shape, const float* q,
                     std::int64_t ldq, std::int64_t mask_rows, const float* lse, const float* k,
                     std::int64_t ldk, std::int64_t keys, float* scores,
                     AttentionWorkspace& workspace) {
  MASKKV_REQUIRE(shape.head_dim >= 1 && shape.kv_heads >= 1 && shape.heads >= 1 &&
                     shape.heads % shape.kv_heads == 0 && mask_rows >= 0 && keys >= 0,
                 "impossible attention shape");
  if (keys == 0) return;
  if (mask_rows == 0) {
    std::fill_n(scores, shape.kv_heads * keys, 0.0F);
    return;
  }
  const LaneKernels& lanes = *workspace.lanes;
  const std::int64_t group = shape.heads / shape.kv_heads;
  const std::int64_t stacked = group * mask_rows;
  const std::int64_t padded = PaddedLanes(stacked);
  const std::int64_t packed_size = padded * (shape.head_dim + 1);
  workspace.packed_q.Resize(shape.kv_heads * packed_size);
  pool.ParallelFor(shape.kv_heads, [&](std::int64_t kv_head, int) {
    float* packed = workspace.packed_q.data() + kv_head * packed_size;
    PackLse(lse + kv_head * stacked, stacked, packed);
    lanes.pack_queries(q + kv_head * group * shape.head_dim, ldq, mask_rows, 0, stacked,
                       shape.head_dim, packed + padded);
  });
  const std::int64_t scratch = ScoreScratch(shape.head_dim);
  workspace.scratch.Resize(pool.threads() * scratch);
  const std::int64_t units = (keys + kKeysPerUnit - 1) / kKeysPerUnit;
  pool.ParallelFor(shape.kv_heads * units, [&](std::int64_t item, int worker) {
    const std::int64_t kv_head = item / units;
    const std::int64_t first = item % units * kKeysPerUnit;
    const float* packed = workspace.packed_q.data() + kv_head * packed_size;
    lanes.score({.packed_q = packed + padded,
                 .lse = packed,
                 .lanes = padded,
                 .head_dim = shape.head_dim,
                 .segment = {k + first * ldk + kv_head * shape.head_dim, nullptr,
                             std::min(kKeysPerUnit, keys - first), ldk, false},
                 .scores = scores + kv_head * keys + first,
                 .scratch = workspace.scratch.data() + worker * scratch});
  });
}

}  // namespace maskkv::kernels
