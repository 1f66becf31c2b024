// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention/attention.h"

#include <algorithm>
#include <cstddef>
#include <limits>

#include "kernels/attention/lane_kernels.h"
#include "kernels/base/require.h"

namespace maskkv::kernels {
namespace {

std::int64_t HeadsPerGroup(const AttentionShape& shape) { return shape.heads / shape.kv_heads; }

// Blocks of stacked query rows of one KV head.
std::int64_t BlocksOf(const AttentionShape& shape, const AttentionRequest& request) {
  return (HeadsPerGroup(shape) * request.query_rows + kQueryBlock - 1) / kQueryBlock;
}

void CheckRequest(const AttentionShape& shape, const AttentionRequest& request) {
  MASKKV_REQUIRE(request.query_rows >= 0 && request.own_rows >= 0, "negative number of rows");
  MASKKV_REQUIRE(request.query_rows <= 1 || (request.ldq >= shape.heads * shape.head_dim &&
                                             request.ldo >= shape.heads * shape.head_dim),
                 "rows of q or out overlap");
  MASKKV_REQUIRE(request.own_rows <= 1 || request.ldkv >= shape.kv_heads * shape.head_dim,
                 "rows of k or v overlap");
  MASKKV_REQUIRE(
      request.cached.empty() || request.cached.size() == static_cast<std::size_t>(shape.kv_heads),
      "cached heads are neither absent nor kv_heads");
}

void AttendToNothing(const AttendUnit& unit) {
  for (std::int64_t s = unit.begin; s < unit.end; ++s) {
    float* out = unit.out + s % unit.query_rows * unit.ldo + s / unit.query_rows * unit.head_dim;
    std::fill_n(out, unit.head_dim, 0.0F);
    if (unit.lse != nullptr) unit.lse[s] = -std::numeric_limits<float>::infinity();
  }
}

AttendUnit MakeUnit(const AttentionShape& shape, const AttentionRequest& request,
                    std::int64_t kv_head, std::int64_t block, float* scratch) {
  const std::int64_t first_head = kv_head * HeadsPerGroup(shape);
  const std::int64_t stacked = HeadsPerGroup(shape) * request.query_rows;
  CachedHead cached = {nullptr, nullptr, 0};
  if (!request.cached.empty()) cached = request.cached[static_cast<std::size_t>(kv_head)];
  // Without own rows k and v may be null, and null plus an offset is undefined.
  const std::int64_t own = request.own_rows == 0 ? 0 : kv_head * shape.head_dim;
  return {.q = request.q + first_head * shape.head_dim,
          .ldq = request.ldq,
          .query_rows = request.query_rows,
          .out = request.out + first_head * shape.head_dim,
          .ldo = request.ldo,
          .lse = request.lse == nullptr ? nullptr : request.lse + first_head * request.query_rows,
          .begin = block * kQueryBlock,
          .end = std::min(stacked, (block + 1) * kQueryBlock),
          .head_dim = shape.head_dim,
          .segments = {{cached.k, cached.v, cached.pairs, shape.head_dim,
                        request.cached_dtype == DType::kBF16},
                       {request.k + own, request.v + own, request.own_rows, request.ldkv, false}},
          .scratch = scratch};
}

}  // namespace

void RaggedAttention(WorkerPool& pool, const AttentionShape& shape,
                     std::span<const AttentionRequest> requests, AttentionWorkspace& workspace) {
  MASKKV_REQUIRE(shape.head_dim >= 1 && shape.kv_heads >= 1 && shape.heads >= 1 &&
                     shape.heads % shape.kv_heads == 0,
                 "impossible attention shape");
  const LaneKernels& lanes = *workspace.lanes;
  const std::int64_t scratch = AttendScratch(shape.head_dim);
  workspace.scratch.Resize(pool.threads() * scratch);
  std::vector<std::int64_t>& borders = workspace.borders;
  borders.assign(1, 0);
  for (const AttentionRequest& request : requests) {
    CheckRequest(shape, request);
    borders.push_back(borders.back() + shape.kv_heads * BlocksOf(shape, request));
  }
  pool.ParallelFor(borders.back(), [&](std::int64_t item, int worker) {
    const auto after = std::upper_bound(borders.begin(), borders.end(), item);
    const AttentionRequest& request =
        requests[static_cast<std::size_t>(after - borders.begin() - 1)];
    const std::int64_t block = item - *(after - 1);
    const std::int64_t blocks = BlocksOf(shape, request);
    const AttendUnit unit = MakeUnit(shape, request, block / blocks, block % blocks,
                                     workspace.scratch.data() + worker * scratch);
    if (unit.segments[0].rows + unit.segments[1].rows == 0) {
      AttendToNothing(unit);
    } else {
      lanes.attend(unit);
    }
  });
}

}  // namespace maskkv::kernels
