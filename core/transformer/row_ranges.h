// SPDX-License-Identifier: Apache-2.0
//
// Element-wise operations over rows, cut into work items of a pool.
#ifndef MASKKV_CORE_TRANSFORMER_ROW_RANGES_H_
#define MASKKV_CORE_TRANSFORMER_ROW_RANGES_H_

#include <algorithm>
#include <cstdint>

#include "kernels/activation/add.h"
#include "kernels/parallel/worker_pool.h"

namespace maskkv::transformer {

// Rows a work item.
inline constexpr std::int64_t kRowsPerItem = 8;

// body(begin, end) over row ranges, on every worker of the pool.
template <typename Body>
void ForRowRanges(kernels::WorkerPool& pool, std::int64_t rows, const Body& body) {
  const std::int64_t items = (rows + kRowsPerItem - 1) / kRowsPerItem;
  pool.ParallelFor(items, [&](std::int64_t item, int) {
    const std::int64_t begin = item * kRowsPerItem;
    body(begin, std::min(begin + kRowsPerItem, rows));
  });
}

// target (rows, width) += source (rows, width), both contiguous.
inline void AddRows(kernels::WorkerPool& pool, const float* source, std::int64_t rows,
                    std::int64_t width, float* target) {
  ForRowRanges(pool, rows, [&](std::int64_t begin, std::int64_t end) {
    kernels::AddInto(source + begin * width, (end - begin) * width, target + begin * width);
  });
}

}  // namespace maskkv::transformer

#endif  // MASKKV_CORE_TRANSFORMER_ROW_RANGES_H_
