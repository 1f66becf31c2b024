// SPDX-License-Identifier: Apache-2.0
//
// How much of the attention of rows that were just advanced fell on cached pairs:
//
//   share(h, i) = sum over cached pairs j of head h of exp(score(h, i, j) - lse(h, i))
//               = exp(lse_cached(h, i) - lse(h, i))
//
// lse is over all keys, as the transformer reported it; lse_cached comes from a second attention of
// these rows over the cached pairs alone. Owns scratch memory. Not thread safe: it uses the
// transformer's pool and workspace. A row's shares depend on that row and its pairs alone.
#ifndef MASKKV_CORE_ENGINE_KEPT_MASS_H_
#define MASKKV_CORE_ENGINE_KEPT_MASS_H_

#include <cstdint>
#include <span>

#include "core/transformer/transformer.h"
#include "kernels/base/aligned_buffer.h"

namespace maskkv::engine {

class KeptMassMeter {
 public:
  // The sum of shares over `rows`, in their order, and all query heads; 0 where nothing is cached.
  // rows: of the source's run, ascending. queries (source.rows, query_width), rotated.
  // REQUIRES: source.log_sum_exp (heads, source.rows) was filled by the Advance that gave queries.
  double Sum(transformer::Transformer& transformer, const transformer::AttentionSource& source,
             const float* queries, std::span<const std::int64_t> rows);

 private:
  kernels::AlignedBuffer<float> queries_;      // (rows, query_width)
  kernels::AlignedBuffer<float> attended_;     // (rows, query_width), not read
  kernels::AlignedBuffer<float> log_sum_exp_;  // (heads, rows), of the cached pairs
};

}  // namespace maskkv::engine

#endif  // MASKKV_CORE_ENGINE_KEPT_MASS_H_
