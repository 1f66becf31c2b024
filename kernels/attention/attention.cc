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

std::int64_t StackedRows(const AttentionShape& shape, const AttentionRequest& request) {
  return HeadsPerGroup(shape) * request.query_rows;
}

// Work units of one KV head when a unit takes `block` stacked rows.
std::int64_t BlocksOf(const AttentionShape& shape, const AttentionRequest& request,
                      std::int64_t block) {
  return (StackedRows(shape, request) + block - 1) / block;
}

// Stacked rows of a unit: many, so that a tile of keys is fetched once for all of them, but not so
// many that workers run out of units. Rows do not see each other, so this is free to depend on the
// number of threads and on the other requests.
std::int64_t ChooseBlock(const AttentionShape& shape, std::span<const AttentionRequest> requests,
                         int threads) {
  constexpr std::int64_t kSmallest = 32;
  constexpr std::int64_t kUnitsPerThread = 3;
  std::int64_t block = kQueryBlock;
  for (; block > kSmallest; block /= 2) {
    std::int64_t units = 0;
    for (const AttentionRequest& request : requests) {
      units += shape.kv_heads * BlocksOf(shape, request, block);
    }
    if (units >= kUnitsPerThread * threads) break;
  }
  return block;
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
  for (const CachedHead& head : request.cached) {
    const bool scaled = head.k_scales != nullptr && head.v_scales != nullptr;
    MASKKV_REQUIRE(request.cached_dtype != DType::kInt8 || head.pairs == 0 || scaled,
                   "int8 pairs without scales");
  }
}

void AttendToNothing(const AttendUnit& unit) {
  for (std::int64_t s = unit.begin; s < unit.end; ++s) {
    float* out = unit.out + s % unit.query_rows * unit.ldo + s / unit.query_rows * unit.head_dim;
    std::fill_n(out, unit.head_dim, 0.0F);
    if (unit.lse != nullptr) unit.lse[s] = -std::numeric_limits<float>::infinity();
  }
}

AttendUnit MakeUnit(const AttentionShape& shape, const AttentionRequest& request,
                    std::int64_t kv_head, std::int64_t begin, std::int64_t end, float* scratch) {
  const std::int64_t first_head = kv_head * HeadsPerGroup(shape);
  CachedHead cached = {nullptr, nullptr, 0};
  if (!request.cached.empty()) cached = request.cached[static_cast<std::size_t>(kv_head)];
  const bool int8 = request.cached_dtype == DType::kInt8;
  // Without own rows k and v may be null, and null plus an offset is undefined.
  const std::int64_t own = request.own_rows == 0 ? 0 : kv_head * shape.head_dim;
  return {.q = request.q + first_head * shape.head_dim,
          .ldq = request.ldq,
          .query_rows = request.query_rows,
          .out = request.out + first_head * shape.head_dim,
          .ldo = request.ldo,
          .lse = request.lse == nullptr ? nullptr : request.lse + first_head * request.query_rows,
          .begin = begin,
          .end = end,
          .head_dim = shape.head_dim,
          .segments = {{cached.k, cached.v, cached.pairs, shape.head_dim,
                        request.cached_dtype == DType::kBF16, int8 ? cached.k_scales : nullptr,
                        int8 ? cached.v_scales : nullptr},
                       {request.k + own, request.v + own, request.own_rows, request.ldkv, false}},
          .scratch = scratch};
}

}  // namespace

void RaggedAttention(WorkerPool& pool, const AttentionShape& shape,
                     std::span<const AttentionRequest> requests, AttentionWorkspace& workspace) {
  MASKKV_REQUIRE(shape.head_dim >= 1 && shape.kv_heads >= 1 && shape.heads >= 1 &&
                     shape.heads % shape.kv_heads == 0,
                 "impossible attention shape");
  const auto attend =
      shape.products == DType::kBF16 ? workspace.lanes->attend_bf16 : workspace.lanes->attend;
  const std::int64_t scratch = AttendScratch(shape.head_dim);
  workspace.scratch.Resize(pool.threads() * scratch);
  const std::int64_t block = ChooseBlock(shape, requests, pool.threads());
  std::vector<std::int64_t>& borders = workspace.borders;
  borders.assign(1, 0);
  for (const AttentionRequest& request : requests) {
    CheckRequest(shape, request);
    borders.push_back(borders.back() + shape.kv_heads * BlocksOf(shape, request, block));
  }
  pool.ParallelFor(borders.back(), [&](std::int64_t item, int worker) {
    const auto after = std::upper_bound(borders.begin(), borders.end(), item);
    const AttentionRequest& request =
        requests[static_cast<std::size_t>(after - borders.begin() - 1)];
    const std::int64_t index = item - *(after - 1);
    const std::int64_t blocks = BlocksOf(shape, request, block);
    const std::int64_t begin = index % blocks * block;
    const AttendUnit unit = MakeUnit(shape, request, index / blocks, begin,
                                     std::min(begin + block, StackedRows(shape, request)),
                                     workspace.scratch.data() + worker * scratch);
    if (unit.segments[0].rows + unit.segments[1].rows == 0) {
      AttendToNothing(unit);
    } else {
      attend(unit);
    }
  });
}

}  // namespace maskkv::kernels
