// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention/attention.h"

#include "kernels/attention/attention_ref.h"

namespace maskkv::kernels {

void RaggedAttention(WorkerPool& pool, const AttentionShape& shape,
                     std::span<const AttentionRequest> requests, AttentionWorkspace&) {
  pool.ParallelFor(static_cast<std::int64_t>(requests.size()), [&](std::int64_t i, int) {
    ref::Attention(shape, requests[static_cast<std::size_t>(i)]);
  });
}

}  // namespace maskkv::kernels
