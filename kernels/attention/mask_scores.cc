// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention/mask_scores.h"

#include "kernels/attention/attention_ref.h"

namespace maskkv::kernels {

void MaskQueryScores(WorkerPool&, const AttentionShape& shape, const float* q, std::int64_t ldq,
                     std::int64_t mask_rows, const float* lse, const float* k, std::int64_t ldk,
                     std::int64_t keys, float* scores, AttentionWorkspace&) {
  ref::MaskQueryScores(shape, q, ldq, mask_rows, lse, k, ldk, keys, scores);
}

}  // namespace maskkv::kernels
