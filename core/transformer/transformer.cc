// SPDX-License-Identifier: Apache-2.0
#include "core/transformer/transformer.h"

#include <algorithm>
#include <iterator>

#include "core/base/scoped_timer.h"
#include "core/transformer/row_ranges.h"
#include "kernels/activation/bias.h"
#include "kernels/norm/cosine.h"
#include "kernels/norm/rms_norm.h"

namespace maskkv::transformer {

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

void Transformer::NormRows(const float* hidden, std::int64_t rows, const float* weight,
                           float* out) {
  const ScopedTimer timer(op_seconds_.norm);
  const std::int64_t width = this->hidden();
  const auto eps = static_cast<float>(config().rms_norm_eps);
  ForRowRanges(pool_, rows, [&](std::int64_t begin, std::int64_t end) {
    kernels::RmsNorm(hidden + begin * width, end - begin, width, width, weight, eps,
                     out + begin * width, width);
  });
}

void Transformer::Multiply(const kernels::PackedMatrix& matrix, const float* x, std::int64_t rows,
                           float* y, std::int64_t ldy, kernels::Store store) {
  const ScopedTimer timer(op_seconds_.gemm);
  kernels::MatMul(pool_, matrix, x, rows, matrix.in(), y, ldy, store, gemm_workspace_);
}

void Transformer::AddBias(std::span<const float> bias, float* x, std::int64_t rows,
                          std::int64_t ldx) {
  if (bias.empty()) return;
  const ScopedTimer timer(op_seconds_.activation);
  ForRowRanges(pool_, rows, [&](std::int64_t begin, std::int64_t end) {
    kernels::AddBias(bias.data(), end - begin, std::ssize(bias), x + begin * ldx, ldx);
  });
}

void Transformer::NormHeads(const kernels::AlignedBuffer<float>& weight, float* x,
                            std::int64_t rows, std::int64_t ldx, std::int64_t heads) {
  if (weight.size() == 0) return;
  const ScopedTimer timer(op_seconds_.norm);
  const std::int64_t width = shape_.head_dim;
  const auto eps = static_cast<float>(config().rms_norm_eps);
  ForRowRanges(pool_, rows, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      float* const first = x + row * ldx;
      kernels::RmsNorm(first, heads, width, width, weight.data(), eps, first, width);
    }
  });
}

void Transformer::Rotate(float* x, std::int64_t first, std::int64_t rows, std::int64_t ldx,
                         std::int64_t heads, const std::int32_t* positions,
                         std::span<const RopeRun> rotations) {
  const ScopedTimer timer(op_seconds_.rope);
  ForRowRanges(pool_, rows, [&](std::int64_t begin, std::int64_t end) {
    std::int64_t run_begin = -first;  // rows count from x, runs from `first` rows before it
    for (const RopeRun& run : rotations) {
      const std::int64_t from = std::max(begin, run_begin);
      const std::int64_t to = std::min(end, run_begin + run.rows);
      if (from < to) {
        kernels::ApplyRope(*run.table, positions + first + from, x + from * ldx, to - from, ldx,
                           heads);
      }
      run_begin += run.rows;
    }
  });
}

void Transformer::ProjectKeysValues(std::int64_t layer, const float* hidden, std::int64_t rows,
                                    const std::int32_t* positions,
                                    std::span<const RopeRun> rotations, float* kv) {
  ProjectColumns(layer, {0, 2 * kv_width()}, hidden, rows, positions, rotations, kv);
}

void Transformer::ProjectKeys(std::int64_t layer, const float* hidden, std::int64_t rows,
                              const std::int32_t* positions, std::span<const RopeRun> rotations,
                              float* kv) {
  ProjectColumns(layer, {0, kv_width()}, hidden, rows, positions, rotations, kv);
}

void Transformer::ProjectValues(std::int64_t layer, const float* hidden, std::int64_t rows,
                                float* kv) {
  ProjectColumns(layer, {kv_width(), 2 * kv_width()}, hidden, rows, nullptr, {}, kv);
}

void Transformer::ProjectColumns(std::int64_t layer, kernels::Columns columns, const float* hidden,
                                 std::int64_t rows, const std::int32_t* positions,
                                 std::span<const RopeRun> rotations, float* kv) {
  const LayerWeights& weights = weights_.layer(layer);
  const std::int64_t ld = 2 * kv_width();
  const std::int64_t width = columns.end - columns.begin;
  std::span<const float> bias = weights.key_value_bias.span();
  if (!bias.empty()) {
    bias = bias.subspan(static_cast<std::size_t>(columns.begin), static_cast<std::size_t>(width));
  }
  // In blocks, so that no normed copy of a whole prompt is ever held.
  for (std::int64_t first = 0; first < rows; first += kRowBlock) {
    const std::int64_t count = std::min(kRowBlock, rows - first);
    normed_.Resize(count * this->hidden());
    NormRows(hidden + first * this->hidden(), count, weights.attn_norm.data(), normed_.data());
    float* block = kv + first * ld;
    {
      const ScopedTimer timer(op_seconds_.gemm);
      kernels::MatMulColumns(pool_, weights.key_value, columns, normed_.data(), count,
                             this->hidden(), block, ld, kernels::Store::kOverwrite,
                             gemm_workspace_);
    }
    AddBias(bias, block + columns.begin, count, ld);
    if (columns.begin == 0) {
      NormHeads(weights.key_norm, block, count, ld, shape_.kv_heads);
      Rotate(block, first, count, ld, shape_.kv_heads, positions, rotations);
    }
    if (weights_.kv_dtype() != kernels::DType::kBF16) continue;
    for (std::int64_t row = 0; row < count; ++row) {
      kernels::RoundToBf16InPlace(block + row * ld + columns.begin, width);
    }
  }
}

void Transformer::RoundQueries(std::int64_t rows) {
  if (shape_.products != kernels::DType::kBF16) return;
  const ScopedTimer timer(op_seconds_.rope);
  const std::int64_t width = query_width();
  ForRowRanges(pool_, rows, [&](std::int64_t begin, std::int64_t end) {
    kernels::RoundToBf16InPlace(query_.data() + begin * width, (end - begin) * width);
  });
}

void Transformer::Attend(std::span<const AttentionSource> sources) {
  const ScopedTimer timer(op_seconds_.attention);
  const std::int64_t width = query_width();
  requests_.clear();
  std::int64_t row = 0;
  for (const AttentionSource& source : sources) {
    requests_.push_back({.q = query_.data() + row * width,
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

void Transformer::Advance(std::int64_t layer, float* hidden, std::int64_t rows,
                          const std::int32_t* positions, std::span<const AttentionSource> sources,
                          double* cosines, const SublayerOutputs& outputs) {
  const LayerWeights& weights = weights_.layer(layer);
  const std::int64_t width = this->hidden();
  const std::int64_t q_width = query_width();
  normed_.Resize(rows * width);
  query_.Resize(rows * q_width);
  attended_.Resize(rows * q_width);

  NormRows(hidden, rows, weights.attn_norm.data(), normed_.data());
  Multiply(weights.query, normed_.data(), rows, query_.data(), q_width, kernels::Store::kOverwrite);
  AddBias(weights.query_bias.span(), query_.data(), rows, q_width);
  NormHeads(weights.query_norm, query_.data(), rows, q_width, shape_.heads);
  rotations_.clear();
  for (const AttentionSource& source : sources) {
    AddRopeRun({source.rows, source.rope}, rotations_);
  }
  Rotate(query_.data(), 0, rows, q_width, shape_.heads, positions, rotations_);
  RoundQueries(rows);
  Attend(sources);
  if (cosines != nullptr) {
    before_.Resize(rows * width);
    std::copy_n(hidden, rows * width, before_.data());
  }
  if (outputs.attention == nullptr) {
    Multiply(weights.attn_out, attended_.data(), rows, hidden, width, kernels::Store::kAdd);
  } else {
    Multiply(weights.attn_out, attended_.data(), rows, outputs.attention, width,
             kernels::Store::kOverwrite);
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
  NormRows(hidden, rows, weights.ffn_norm.data(), normed_.data());
  feed_forward_.Run(weights, normed_.data(), rows, hidden, outputs.feed_forward, gemm_workspace_,
                    op_seconds_);
}

void Transformer::FinalNorm(const float* hidden, std::int64_t rows, float* out) {
  NormRows(hidden, rows, weights_.final_norm(), out);
}

void Transformer::Project(std::span<const kernels::HeadRow> rows) {
  const ScopedTimer timer(op_seconds_.head);
  kernels::ProjectVocabulary(pool_, weights_.head(), rows, head_workspace_);
}

std::int64_t Transformer::workspace_bytes() const {
  return normed_.capacity_bytes() + query_.capacity_bytes() + attended_.capacity_bytes() +
         before_.capacity_bytes() + feed_forward_.workspace_bytes() + gemm_workspace_.bytes() +
         attention_workspace_.bytes() + head_workspace_.bytes();
}

}  // namespace maskkv::transformer
