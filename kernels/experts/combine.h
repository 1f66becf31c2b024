// SPDX-License-Identifier: Apache-2.0
//
// What an expert adds to the rows that were routed to it. Pure; an element's result depends on that
// element alone, the same bits on every instruction set.
#ifndef MASKKV_KERNELS_EXPERTS_COMBINE_H_
#define MASKKV_KERNELS_EXPERTS_COMBINE_H_

#include <cstdint>
#include <span>

namespace maskkv::kernels {

// out(rows[i], :) += weights[i] * x(i, :), the product and the sum rounded once each.
// x: (rows.size(), width), row stride ldx >= width. rows: numbers of rows of out, none twice.
// weights: (rows.size()). out: row stride ldo >= width; does not overlap x. Empty rows do nothing.
void AddWeightedRows(const float* x, std::int64_t ldx, std::int64_t width,
                     std::span<const std::int32_t> rows, const float* weights, float* out,
                     std::int64_t ldo);

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_EXPERTS_COMBINE_H_
