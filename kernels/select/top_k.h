// SPDX-License-Identifier: Apache-2.0
//
// Top-k selection of kept positions, equation (16) of MaskKV (arXiv 2510.09309): the k positions of
// highest score, ties going to the lower position, given back in ascending position. A radix
// select: at most four passes over the scores, O(n) whatever their order, no memory from the heap.
// Pure functions, thread safe.
#ifndef MASKKV_KERNELS_SELECT_TOP_K_H_
#define MASKKV_KERNELS_SELECT_TOP_K_H_

#include <cstdint>
#include <span>

namespace maskkv::kernels {

// scores (n) f32, any values but NaN (-0 equals +0, denormals count as what they are, infinities
// are ordinary ends of the order). kept (k) receives positions in [0, n), strictly ascending.
// k == 0 and n == 0 do nothing; k == n keeps everything.
// The set for k is a subset of the set for k + 1.
// REQUIRES: 0 <= k <= n < 2^31, kept.size() == k, no NaN (see AnyNan).
void SelectTopK(std::span<const float> scores, std::int64_t k, std::span<std::int32_t> kept);

// True if any of the values is NaN; false for an empty span.
bool AnyNan(std::span<const float> values);

namespace ref {

// The slow obvious twin: a stable sort by descending score, cut at k, sorted by position.
void SelectTopK(std::span<const float> scores, std::int64_t k, std::span<std::int32_t> kept);

}  // namespace ref

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_SELECT_TOP_K_H_
