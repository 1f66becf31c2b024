// SPDX-License-Identifier: Apache-2.0
//
// Compaction of the kept pairs: copies the chosen rows of one head out of a layer's full K or V
// (which is dropped afterwards) into the entry, narrowing to the entry's type. Pure, thread safe.
#ifndef MASKKV_KERNELS_COMPACT_GATHER_H_
#define MASKKV_KERNELS_COMPACT_GATHER_H_

#include <cstdint>
#include <span>

#include "kernels/base/dtype.h"

namespace maskkv::kernels {

// out(i, :) = rows(kept[i], :), exact for kF32, rounded to nearest even for kBF16, quantised with a
// scale a row for kInt8 (kernels/base/cached_row.h).
// rows  (n, head_dim) f32, rows ld elements apart: one head's columns of (n, kv_heads * head_dim).
// kept  row numbers in [0, n), any order, repetition allowed. Empty: nothing is read or written.
// out   (kept.size(), head_dim) of `dtype`, contiguous, aligned to its element; overwritten; must
//       not overlap rows.
// scales (kept.size()), overwritten for kInt8; not touched and may be null for others.
void GatherRows(const float* rows, std::int64_t ld, std::int64_t head_dim,
                std::span<const std::int32_t> kept, DType dtype, void* out, float* scales);

// The slow twin: element by element, from the definitions of the types. Equal bits.
void GatherRowsRef(const float* rows, std::int64_t ld, std::int64_t head_dim,
                   std::span<const std::int32_t> kept, DType dtype, void* out, float* scales);

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_COMPACT_GATHER_H_
