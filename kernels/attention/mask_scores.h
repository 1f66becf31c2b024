// SPDX-License-Identifier: Apache-2.0
//
// Mask voting: how much attention the mask queries of a prefill pay to every key, equations (6) and
// (7) of MaskKV (arXiv 2510.09309), summed over the query heads that share a KV head:
//
//   scores(g, j) = sum over query heads h of group g, mask rows i of
//                  exp(q(i, h) . k(j, g) / sqrt(head_dim) - lse(h, i))
//
// lse is what RaggedAttention returned for the same rows over the same keys, so each mask row's
// weights add up to one over all keys, masks included; the caller splits the scores by role (prompt
// keys for the selection, prompt and mask totals for the head's preference). Only the mask rows are
// computed again, mask_rows x keys per head, and no matrix of that size exists either.
//
// Determinism: the sum over (query head, mask row) has a fixed order of its own, so the result
// depends neither on the thread count nor on how keys are cut into work units.
// Thread safety: as attention.h.
#ifndef MASKKV_KERNELS_ATTENTION_MASK_SCORES_H_
#define MASKKV_KERNELS_ATTENTION_MASK_SCORES_H_

#include <cstdint>

#include "kernels/attention/attention.h"
#include "kernels/attention/workspace.h"
#include "kernels/parallel/worker_pool.h"

namespace maskkv::kernels {

// q       (mask_rows, heads * head_dim) f32, rows ldq apart; the rows of the masks only.
// lse     (heads, mask_rows) f32, contiguous.
// k       (keys, kv_heads * head_dim) f32, rows ldk apart; prompt and masks in sequence order.
// scores  (kv_heads, keys) f32, contiguous, overwritten; must not overlap the inputs.
// mask_rows == 0 gives zeros; keys == 0 does nothing. NaN inputs give NaN scores.
void MaskQueryScores(WorkerPool& pool, const AttentionShape& shape, const float* q,
                     std::int64_t ldq, std::int64_t mask_rows, const float* lse, const float* k,
                     std::int64_t ldk, std::int64_t keys, float* scores,
                     AttentionWorkspace& workspace);

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_ATTENTION_MASK_SCORES_H_
