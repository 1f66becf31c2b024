// SPDX-License-Identifier: Apache-2.0
#include "core/engine/kept_mass.h"

#include <algorithm>
#include <cmath>

namespace maskkv::engine {

double KeptMassMeter::Sum(transformer::Transformer& transformer,
                          const transformer::AttentionSource& source, const float* queries,
                          std::span<const std::int64_t> rows) {
  if (rows.empty() || source.cached.empty()) return 0;
  const kernels::AttentionShape& shape = transformer.shape();
  const std::int64_t width = transformer.query_width();
  const std::int64_t count = std::ssize(rows);
  queries_.Resize(count * width);
  attended_.Resize(count * width);
  log_sum_exp_.Resize(shape.heads * count);
  float* out = queries_.data();
  for (const std::int64_t row : rows) out = std::copy_n(queries + row * width, width, out);
  const kernels::AttentionRequest request{.q = queries_.data(),
                                          .ldq = width,
                                          .query_rows = count,
                                          .k = nullptr,
                                          .v = nullptr,
                                          .ldkv = 0,
                                          .own_rows = 0,
                                          .cached = source.cached,
                                          .cached_dtype = source.cached_dtype,
                                          .out = attended_.data(),
                                          .ldo = width,
                                          .lse = log_sum_exp_.data()};
  kernels::RaggedAttention(transformer.pool(), shape, {&request, 1},
                           transformer.attention_workspace());
  double sum = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t row = rows[static_cast<std::size_t>(i)];
    for (std::int64_t head = 0; head < shape.heads; ++head) {
      const double cached = log_sum_exp_.data()[head * count + i];
      sum += std::exp(cached - source.log_sum_exp[head * source.rows + row]);
    }
  }
  return sum;
}

}  // namespace maskkv::engine
