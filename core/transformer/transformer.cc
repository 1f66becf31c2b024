// SPDX-License-Identifier: Apache-2.0
#include "core/transformer/transformer.h"

#include <algorithm>
#include <array>
#include <iterator>

#include "core/base/scoped_timer.h"
#include "core/transformer/row_ranges.h"
#include "kernels/norm/cosine.h"
#include "kernels/norm/rms_norm.h"

namespace maskkv::transformer {

namespace {

// Rows that a norm gives on their way into a product (kernels::RowSource).
struct NormedRows {
  const float* x;  // (rows, width), contiguous
  std::int64_t width;
  const float* weight;
  float eps;

  const float* operator()(std::int64_t row, float* out) const {
    kernels::RmsNorm(x + row * width, 1, width, width, weight, eps, out, width);
    return out;
  }
};

NormedRows Normed(const model::ModelConfig& config, const float* x, const float* weight) {
  return {x, config.hidden, weight, static_cast<float>(config.rms_norm_eps)};
}

}  // namespace

Transformer::Transformer(const Weights& weights, kernels::WorkerPool& pool,
                         std::int64_t max_positions)
    : weights_(weights),
      pool_(pool),
      shape_{weights.config().heads, weights.config().kv_heads, weights.config().head_dim,
             weights.kv_dtype()},
      rope_tables_(weights.config(), weights.kv_dtype(), max_positions),
      feed_forward_(weights.config(), pool) {}

void Transformer::Embed(std::span<const std::int32_t> tokens, float* hidden) {
  const ScopedTimer timer(op_seconds_.embed);
  ForRowRanges(
      pool_, static_cast<std::int64_t>(tokens.size()), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t row = begin; row < end; ++row) {
          weights_.Embed(tokens[static_cast<std::size_t>(row)], hidden + row * this->hidden());
        }
      });
}

void Transformer::EmbedMixed(std::span<const MixedRow> rows, float* hidden) {
  const ScopedTimer timer(op_seconds_.embed);
  const auto width = static_cast<std::size_t>(this->hidden());
  pool_.ParallelFor(std::ssize(rows), [&](std::int64_t index, int) {
    const MixedRow& mixed = rows[static_cast<std::size_t>(index)];
    const std::span<float> out(hidden + mixed.row * this->hidden(), width);
    std::fill(out.begin(), out.end(), 0.0F);
    std::vector<float> embedding(width);
    for (const WeightedToken& part : mixed.tokens) {
      weights_.Embed(part.token, embedding.data());
      for (std::size_t i = 0; i < width; ++i) out[i] += part.weight * embedding[i];
    }
  });
}

void Transformer::ProjectKeysValues(std::int64_t layer, const float* hidden, std::int64_t rows,
                                    const std::int32_t* positions,
                                    std::span<const RopeRun> rotations, float* kv) {
  ProjectRows(layer, hidden, rows, positions, rotations,
              {.kv = kv, .columns = {0, 2 * kv_width()}});
}

void Transformer::ProjectAll(std::int64_t layer, const float* hidden, std::int64_t rows,
                             const std::int32_t* positions, std::span<const RopeRun> rotations,
                             float* kv, float* queries) {
  ProjectRows(layer, hidden, rows, positions, rotations,
              {.kv = kv, .columns = {0, 2 * kv_width()}, .queries = queries});
}

void Transformer::ProjectKeys(std::int64_t layer, const float* hidden, std::int64_t rows,
                              const std::int32_t* positions, std::span<const RopeRun> rotations,
                              float* kv) {
  ProjectRows(layer, hidden, rows, positions, rotations, {.kv = kv, .columns = {0, kv_width()}});
}

void Transformer::ProjectValues(std::int64_t layer, const float* hidden, std::int64_t rows,
                                float* kv) {
  ProjectRows(layer, hidden, rows, nullptr, {},
              {.kv = kv, .columns = {kv_width(), 2 * kv_width()}});
}

void Transformer::ProjectRows(std::int64_t layer, const float* hidden, std::int64_t rows,
                              const std::int32_t* positions, std::span<const RopeRun> rotations,
                              const Projections& to) {
  const LayerWeights& weights = weights_.layer(layer);
  const std::int64_t ld = 2 * kv_width();
  // In blocks, so that the inputs of a product are never those of a whole prompt.
  for (std::int64_t first = 0; first < rows; first += kRowBlock) {
    const std::int64_t count = std::min(kRowBlock, rows - first);
    Projections block = to;
    std::array<kernels::Product, 2> products;
    std::size_t used = 0;
    if (to.kv != nullptr) {
      block.kv += first * ld;
      products[used++] = {&weights.key_value, to.columns, block.kv, ld, kernels::Store::kOverwrite};
    }
    if (to.queries != nullptr) {
      block.queries += first * query_width();
      products[used++] = {&weights.query,
                          {0, query_width()},
                          block.queries,
                          query_width(),
                          kernels::Store::kOverwrite};
    }
    {
      const ScopedTimer timer(op_seconds_.gemm);
      const NormedRows normed =
          Normed(config(), hidden + first * this->hidden(), weights.attn_norm.data());
      kernels::MatMulRows(pool_, std::span(products).first(used), normed, count, gemm_workspace_);
    }
    FinishRows(weights, {first, count, positions, rotations}, block);
  }
}

void Transformer::FinishRows(const LayerWeights& weights, const HeadRows& at,
                             const Projections& to) {
  const ScopedTimer timer(op_seconds_.rope);
  const std::int64_t width = kv_width();
  const std::span<const float> bias = weights.key_value_bias.span();
  const auto half = [&](std::size_t begin) {
    return bias.empty() ? bias : bias.subspan(begin, static_cast<std::size_t>(width));
  };
  std::array<ProjectedHeads, 3> parts;
  std::size_t used = 0;
  if (to.kv != nullptr && to.columns.begin == 0) {
    parts[used++] = {to.kv, 2 * width, shape_.kv_heads, half(0), weights.key_norm.span(), true};
  }
  if (to.kv != nullptr && to.columns.end == 2 * width) {
    parts[used++] = {
        to.kv + width, 2 * width, shape_.kv_heads, half(static_cast<std::size_t>(width)), {},
        false};
  }
  if (to.queries != nullptr) {
    parts[used++] = {to.queries,
                     query_width(),
                     shape_.heads,
                     weights.query_bias.span(),
                     weights.query_norm.span(),
                     true};
  }
  FinishHeads(pool_, std::span(parts).first(used), at, shape_.head_dim,
              static_cast<float>(config().rms_norm_eps),
              weights_.kv_dtype() == kernels::DType::kBF16);
}

void Transformer::Attend(const float* queries, std::span<const AttentionSource> sources) {
  const ScopedTimer timer(op_seconds_.attention);
  const std::int64_t width = query_width();
  queries_ = queries;
  requests_.clear();
  std::int64_t row = 0;
  for (const AttentionSource& source : sources) {
    requests_.push_back({.q = queries + row * width,
                         .ldq = width,
                         .query_rows = source.rows,
                         .k = source.keys,
                         .v = source.values,
                         .ldkv = source.ldkv,
                         .own_rows = source.own_rows,
                         .cached = source.cached,
                         .cached_dtype = source.cached_dtype,
                         .out = attended_.data() + row * width,
                         .ldo = width,
                         .lse = source.log_sum_exp});
    row += source.rows;
  }
  kernels::RaggedAttention(pool_, shape_, requests_, attention_workspace_);
}

void Transformer::ProjectAttention(const LayerWeights& weights, std::int64_t rows, float* y,
                                   kernels::Store store) {
  const ScopedTimer timer(op_seconds_.gemm);
  kernels::MatMul(pool_, weights.attn_out, attended_.data(), rows, query_width(), y, hidden(),
                  store, gemm_workspace_);
}

void Transformer::Advance(std::int64_t layer, float* hidden, std::int64_t rows,
                          const std::int32_t* positions, std::span<const AttentionSource> sources,
                          double* cosines, const SublayerOutputs& outputs) {
  query_.Resize(rows * query_width());
  rotations_.clear();
  for (const AttentionSource& source : sources) {
    AddRopeRun({source.rows, source.rope}, rotations_);
  }
  ProjectRows(layer, hidden, rows, positions, rotations_, {.queries = query_.data()});
  AdvanceProjected(layer, query_.data(), hidden, rows, sources, cosines, outputs);
}

void Transformer::AdvanceProjected(std::int64_t layer, const float* queries, float* hidden,
                                   std::int64_t rows, std::span<const AttentionSource> sources,
                                   double* cosines, const SublayerOutputs& outputs) {
  const LayerWeights& weights = weights_.layer(layer);
  const std::int64_t width = this->hidden();
  attended_.Resize(rows * query_width());
  Attend(queries, sources);
  if (cosines != nullptr) {
    before_.Resize(rows * width);
    std::copy_n(hidden, rows * width, before_.data());
  }
  if (outputs.attention == nullptr) {
    ProjectAttention(weights, rows, hidden, kernels::Store::kAdd);
  } else {
    ProjectAttention(weights, rows, outputs.attention, kernels::Store::kOverwrite);
    AddRows(pool_, outputs.attention, rows, width, hidden);
  }
  if (cosines != nullptr) {
    ForRowRanges(pool_, rows, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        cosines[row] =
            kernels::CosineSimilarity(before_.data() + row * width, hidden + row * width, width);
      }
    });
  }
  const NormedRows normed = Normed(config(), hidden, weights.ffn_norm.data());
  feed_forward_.Run(weights, normed, rows, hidden, outputs.feed_forward, gemm_workspace_,
                    op_seconds_);
}

void Transformer::FinalNorm(const float* hidden, std::int64_t rows, float* out) {
  const ScopedTimer timer(op_seconds_.norm);
  const NormedRows normed = Normed(config(), hidden, weights_.final_norm());
  ForRowRanges(pool_, rows, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) normed(row, out + row * this->hidden());
  });
}

void Transformer::Project(std::span<const kernels::HeadRow> rows) {
  const ScopedTimer timer(op_seconds_.head);
  kernels::ProjectVocabulary(pool_, weights_.head(), rows, head_workspace_);
}

std::int64_t Transformer::workspace_bytes() const {
  return query_.capacity_bytes() + attended_.capacity_bytes() + before_.capacity_bytes() +
         feed_forward_.workspace_bytes() + gemm_workspace_.bytes() + attention_workspace_.bytes() +
         head_workspace_.bytes();
}

}  // namespace maskkv::transformer
