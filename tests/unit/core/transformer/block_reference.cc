// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/core/transformer/block_reference.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/base/check.h"

namespace maskkv::transformer {
namespace {

Row Load(const model::Checkpoint& checkpoint, const model::TensorSpec& spec) {
  const auto weight = checkpoint.Tensor(spec);
  MASKKV_CHECK(weight.ok() && weight->dtype == kernels::DType::kF32, "a tensor in f32");
  std::int64_t count = 1;
  for (const std::int64_t extent : spec.shape) count *= extent;
  const auto* values = reinterpret_cast<const float*>(weight->data);
  Row row;
  for (std::int64_t i = 0; i < count; ++i) row.push_back({values[i], 0});
  return row;
}

// y = W x + b, W (out, in); b may have no name.
Row Project(const model::Checkpoint& checkpoint, const model::TensorSpec& matrix,
            const model::TensorSpec& bias, const Row& x) {
  const Row weights = Load(checkpoint, matrix);
  Row y;
  for (std::size_t o = 0; o < weights.size() / x.size(); ++o) {
    y.push_back(Dot(std::span(weights).subspan(o * x.size(), x.size()), x));
  }
  if (bias.name.empty()) return y;
  const Row offsets = Load(checkpoint, bias);
  for (std::size_t o = 0; o < y.size(); ++o) y[o] = y[o] + offsets[o];
  return y;
}

Row Norm(std::span<const Bounded> x, const Row& weight, double eps) {
  const Bounded count{static_cast<double>(x.size()), 0};
  const Bounded scale = Bounded{1, 0} / Sqrt(Dot(x, x) / count + Bounded{eps, 0x1p-24 * eps});
  Row y;
  for (std::size_t i = 0; i < x.size(); ++i) y.push_back(x[i] * scale * weight[i]);
  return y;
}

// Each head: its norm if there is one, then the rotation of its pairs (i, i + d/2).
void NormAndRotate(const model::Checkpoint& checkpoint, const model::TensorSpec& norm,
                   std::int32_t position, Row& x) {
  const model::ModelConfig& config = checkpoint.config();
  const auto dim = static_cast<std::size_t>(config.head_dim);
  for (std::size_t head = 0; head < x.size() / dim; ++head) {
    const std::span<Bounded> h = std::span(x).subspan(head * dim, dim);
    if (!norm.name.empty()) {
      std::ranges::copy(Norm(h, Load(checkpoint, norm), config.rms_norm_eps), h.begin());
    }
    for (std::size_t i = 0; i < dim / 2; ++i) {
      const double angle =
          position * std::pow(config.rope_theta,
                              -2.0 * static_cast<double>(i) / static_cast<double>(config.head_dim));
      const Bounded cosine = Rounded(std::cos(angle), 0), sine = Rounded(std::sin(angle), 0);
      const Bounded a = h[i], b = h[i + dim / 2];
      h[i] = a * cosine + Bounded{-1, 0} * b * sine;
      h[i + dim / 2] = b * cosine + a * sine;
    }
  }
}

Row Attend(const model::ModelConfig& config, const Row& query, std::span<const Row> keys,
           std::span<const Row> values) {
  const auto dim = static_cast<std::size_t>(config.head_dim);
  const std::int64_t group = config.heads / config.kv_heads;
  Row out;
  for (std::int64_t head = 0; head < config.heads; ++head) {
    const auto own = static_cast<std::size_t>(head) * dim;
    const auto shared = static_cast<std::size_t>(head / group) * dim;
    Row probability;
    double largest = -1e300;
    for (const Row& key : keys) {
      const Bounded score =
          Dot(std::span(query).subspan(own, dim), std::span(key).subspan(shared, dim)) *
          Rounded(1 / std::sqrt(static_cast<double>(dim)), 0);
      probability.push_back(score);
      largest = std::max(largest, score.value);
    }
    for (Bounded& p : probability) p = Exp(p + Bounded{-largest, 0});
    const Row ones(probability.size(), Bounded{1, 0});
    const Bounded sum = Dot(probability, ones);
    for (std::size_t i = 0; i < dim; ++i) {
      Row column;
      for (const Row& value : values) column.push_back(value[shared + i]);
      out.push_back(Dot(probability, column) / sum);
    }
  }
  return out;
}

Row FeedForwardOf(const model::Checkpoint& checkpoint, const model::TensorSpec& gate,
                  const model::TensorSpec& up, const model::TensorSpec& down, const Row& x) {
  const Row gates = Project(checkpoint, gate, {}, x), ups = Project(checkpoint, up, {}, x);
  Row activated;
  for (std::size_t i = 0; i < gates.size(); ++i) {
    const Bounded silu = gates[i] / (Bounded{1, 0} + Exp(Bounded{-gates[i].value, gates[i].error}));
    activated.push_back(silu * ups[i]);
  }
  return Project(checkpoint, down, {}, activated);
}

Row Experts(const model::Checkpoint& checkpoint, const model::BlockTensors& block, const Row& x,
            bool& ambiguous) {
  const model::ModelConfig& config = checkpoint.config();
  Row shares = Project(checkpoint, block.router, {}, x);
  std::vector<std::size_t> order(shares.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(
      order, [&](std::size_t a, std::size_t b) { return shares[a].value > shares[b].value; });
  const auto chosen = static_cast<std::size_t>(config.experts_per_token);
  const Bounded last = shares[order[chosen - 1]], next = shares[order[chosen]];
  ambiguous |= last.value - last.error <= next.value + next.error;
  const double largest = shares[order[0]].value;
  for (Bounded& share : shares) share = Exp(share + Bounded{-largest, 0});
  order.resize(chosen);
  std::ranges::sort(order);
  Row counted = shares;
  if (config.renormalised_gate) {
    counted.clear();
    for (const std::size_t e : order) counted.push_back(shares[e]);
  }
  const Bounded sum = Dot(counted, Row(counted.size(), Bounded{1, 0}));
  Row y(x.size());
  for (const std::size_t e : order) {
    const Row output = FeedForwardOf(checkpoint, block.experts[e].gate, block.experts[e].up,
                                     block.experts[e].down, x);
    // One rounding more than a division: a renormalised weight is a quotient of quotients.
    const Bounded weight = shares[e] / sum * Bounded{1, 0};
    for (std::size_t i = 0; i < y.size(); ++i) y[i] = y[i] + weight * output[i];
  }
  return y;
}

}  // namespace

std::vector<Row> ReferenceBlock(const model::Checkpoint& checkpoint, std::int64_t layer,
                                std::span<const Row> rows, std::span<const std::int32_t> positions,
                                bool& ambiguous) {
  const model::BlockTensors& block = checkpoint.tensors().blocks[static_cast<std::size_t>(layer)];
  const double eps = checkpoint.config().rms_norm_eps;
  std::vector<Row> queries, keys, values;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const Row normed = Norm(rows[r], Load(checkpoint, block.attn_norm), eps);
    queries.push_back(Project(checkpoint, block.query, block.query_bias, normed));
    NormAndRotate(checkpoint, block.query_norm, positions[r], queries.back());
    keys.push_back(Project(checkpoint, block.key, block.key_bias, normed));
    NormAndRotate(checkpoint, block.key_norm, positions[r], keys.back());
    values.push_back(Project(checkpoint, block.value, block.value_bias, normed));
  }
  std::vector<Row> out;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    Row x = rows[r];
    const Row attended = Project(checkpoint, block.attn_out, {},
                                 Attend(checkpoint.config(), queries[r], keys, values));
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = x[i] + attended[i];
    const Row normed = Norm(x, Load(checkpoint, block.ffn_norm), eps);
    const Row added = block.experts.empty()
                          ? FeedForwardOf(checkpoint, block.gate, block.up, block.down, normed)
                          : Experts(checkpoint, block, normed, ambiguous);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = x[i] + added[i];
    out.push_back(std::move(x));
  }
  return out;
}

}  // namespace maskkv::transformer
