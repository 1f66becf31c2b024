// SPDX-License-Identifier: Apache-2.0
//
// Element-wise operations over rows, cut into work items of a pool.
#ifndef MASKKV_CORE_TRANSFORMER_ROW_RANGES_H_
#define MASKKV_CORE_TRANSFORMER_ROW_RANGES_H_

#include <algorithm>
#include <cstdint>

#include "kernels/parallel/worker_pool.h"

namespace maskkv::transformer {

// Rows a work item.
inline constexpr std::int64_t kRowsPerItem = 16;

// body(begin, end) over row ranges, on every worker of the pool.
template <typename Body>
void ForRowRanges(kernels::WorkerPool& pool, std::int64_t rows, const Body& body) {
  const std::int64_t items = (rows + kRowsPerItem - 1) / kRowsPerItem;
  pool.ParallelFor(items, [&](std::int64_t item, int) {
    const std::int64_t begin = item * kRowsPerItem;
    body(begin, std::min(begin + kRowsPerItem, rows));
  });
}

}  // namespace maskkv::transformer

#endif  // MASKKV_CORE_TRANSFORMER_ROW_RANGES_H_
