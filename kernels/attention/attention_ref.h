// SPDX-License-Identifier: Apache-2.0
//
// The slow obvious twins of attention.h and mask_scores.h: three nested loops in double, one row of
// weights at a time, no tiles, no threads. Tests compare the fast kernels with these.
#ifndef MASKKV_KERNELS_ATTENTION_ATTENTION_REF_H_
#define MASKKV_KERNELS_ATTENTION_ATTENTION_REF_H_

#include <cstdint>

#include "kernels/attention/attention.h"

namespace maskkv::kernels::ref {

// Same contract as RaggedAttention, for one request.
void Attention(const AttentionShape& shape, const AttentionRequest& request);

// Same contract as kernels::MaskQueryScores.
void MaskQueryScores(const AttentionShape& shape, const float* q, std::int64_t ldq,
                     std::int64_t mask_rows, const float* lse, const float* k, std::int64_t ldk,
                     std::int64_t keys, float* scores);

}  // namespace maskkv::kernels::ref

#endif  // MASKKV_KERNELS_ATTENTION_ATTENTION_REF_H_
