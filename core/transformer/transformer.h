// SPDX-License-Identifier: Apache-2.0
//
// The transformer as two verbs a layer, so that prefill and decode share one forward:
//
//   ProjectKeysValues   K and V of rows, K rotated; every row of a sequence needs them first
//   Advance             Q, attention, output projection, FFN of rows, in place in `hidden`
//
// and, for callers who advance all the rows that they project (a decode step), the same bits from
// ProjectAll, which takes Q, K and V from one product, and AdvanceProjected.
//
// A block: x += attn_out(Attn(norm(x))); n = ffn_norm(x); x += down(silu(gate(n)) * up(n)). By the
// family, projections to Q, K and V add a bias, each head's Q and K go through an RMSNorm before
// they are rotated, and experts take the place of the one gate, up and down (feed_forward.h).
// Attention is bidirectional, without a mask: a row sees every cached pair and every own row of its
// sequence. Rows are computed independently of each other, so a caller may advance a sequence in
// blocks of rows: nothing larger than (block, ffn) is ever held.
//
// Activations are f32. With bf16 weights the GEMM inputs are rounded to bf16, with int8 weights
// each row of them to int8 (kernels/gemm/quantise.h). In both cases Q, K and V are rounded to bf16
// after RoPE, so that a pair is the same number in an entry and in its own row, and attention and
// the scores of mask rows see the same queries.
//
// Ownership: borrows weights and pool, owns scratch memory that only grows. Not thread safe: one
// caller at a time (it uses the whole pool). Results are bitwise independent of the pool's thread
// count and, if blocks of a sequence are cut relative to its first row, of other sequences in a
// call.
#ifndef MASKKV_CORE_TRANSFORMER_TRANSFORMER_H_
#define MASKKV_CORE_TRANSFORMER_TRANSFORMER_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/transformer/feed_forward.h"
#include "core/transformer/op_seconds.h"
#include "core/transformer/projected_heads.h"
#include "core/transformer/rope_tables.h"
#include "core/transformer/weights.h"
#include "kernels/attention/attention.h"
#include "kernels/gemm/matmul.h"
#include "kernels/head/vocab_head.h"
#include "kernels/rope/rope.h"

namespace maskkv::transformer {

// What a run of consecutive query rows attends to.
struct AttentionSource {
  std::int64_t rows = 0;                     // query rows of this run
  const kernels::RopeTable* rope = nullptr;  // of Transformer::Rope, as the own and cached keys'
  const float* keys = nullptr;               // (own_rows, kv_width), row stride ldkv
  const float* values = nullptr;             // (own_rows, kv_width), row stride ldkv
  std::int64_t ldkv = 0;
  std::int64_t own_rows = 0;
  std::span<const kernels::CachedHead> cached;  // kv_heads entries or empty
  kernels::DType cached_dtype = kernels::DType::kF32;
  float* log_sum_exp = nullptr;  // (heads, rows) or nullptr
};

// What a layer adds to rows, for callers who keep it: (rows, hidden) each.
struct SublayerOutputs {
  float* attention = nullptr;     // after its output projection
  float* feed_forward = nullptr;  // FeedForward::Run
};

// A row whose embedding is a sum of others'.
struct WeightedToken {
  std::int32_t token = 0;
  float weight = 0;
};
struct MixedRow {
  std::int64_t row = 0;
  std::span<const WeightedToken> tokens;
};

// Query rows are advanced at most so many at a time; blocks are cut relative to a sequence's start.
inline constexpr std::int64_t kRowBlock = 256;

class Transformer {
 public:
  // max_positions bounds the position of every row.
  Transformer(const Weights& weights, kernels::WorkerPool& pool, std::int64_t max_positions);

  const Weights& weights() const { return weights_; }
  const model::ModelConfig& config() const { return weights_.config(); }
  kernels::WorkerPool& pool() { return pool_; }
  const kernels::AttentionShape& shape() const { return shape_; }
  std::int64_t hidden() const { return config().hidden; }
  std::int64_t query_width() const { return shape_.heads * shape_.head_dim; }
  std::int64_t kv_width() const { return shape_.kv_heads * shape_.head_dim; }
  std::int64_t max_positions() const { return rope_tables_.max_positions(); }

  // What rotates rows at positions below `positions` of a sequence whose base is rope_theta * scale
  // (RopeTables::Get). Hold it as long as the sequence lives. REQUIRES: as there.
  std::shared_ptr<const kernels::RopeTable> Rope(double scale, std::int64_t positions) {
    return rope_tables_.Get(scale, positions);
  }

  // hidden (tokens.size(), hidden()) = embeddings.
  void Embed(std::span<const std::int32_t> tokens, float* hidden);

  // Overwrites these rows of hidden with the weighted sums of embeddings, added up in the order of
  // their tokens.
  void EmbedMixed(std::span<const MixedRow> rows, float* hidden);

  // kv (rows, 2 * kv_width()): K, rotated to its position, then V. hidden (rows, hidden()) is read.
  // rotations: runs in row order, their rows sum to `rows`.
  void ProjectKeysValues(std::int64_t layer, const float* hidden, std::int64_t rows,
                         const std::int32_t* positions, std::span<const RopeRun> rotations,
                         float* kv);

  // The same, and the rows' queries (rows, query_width()) for AdvanceProjected, which the caller
  // keeps until then.
  void ProjectAll(std::int64_t layer, const float* hidden, std::int64_t rows,
                  const std::int32_t* positions, std::span<const RopeRun> rotations, float* kv,
                  float* queries);

  // The same bits of K alone, or of V alone: what is left of each row of kv is undefined. Costs
  // that half of the product and what else is in a panel of the packed matrix that both halves
  // share (at most kernels::kMaxPanelWidth columns; none where kv_width() is a multiple of the
  // panels').
  void ProjectKeys(std::int64_t layer, const float* hidden, std::int64_t rows,
                   const std::int32_t* positions, std::span<const RopeRun> rotations, float* kv);
  void ProjectValues(std::int64_t layer, const float* hidden, std::int64_t rows, float* kv);

  // Advances rows through one layer, in place in hidden (rows, hidden()).
  // sources: runs in row order, their rows sum to `rows`.
  // cosines: nullptr, or (rows): cosine similarity of each row before and after the attention
  // sub-layer with its residual (equation 8).
  // outputs: where it is to be kept what the layer adds. hidden gets the same bits either way.
  void Advance(std::int64_t layer, float* hidden, std::int64_t rows, const std::int32_t* positions,
               std::span<const AttentionSource> sources, double* cosines = nullptr,
               const SublayerOutputs& outputs = {});

  // Advance of rows whose queries (rows, query_width()) ProjectAll has given.
  void AdvanceProjected(std::int64_t layer, const float* queries, float* hidden, std::int64_t rows,
                        std::span<const AttentionSource> sources, double* cosines = nullptr,
                        const SublayerOutputs& outputs = {});

  // The rotated queries (rows, query_width()) of the last Advance or AdvanceProjected; valid until
  // the next call.
  const float* queries() const { return queries_; }

  kernels::AttentionWorkspace& attention_workspace() { return attention_workspace_; }

  // out (rows, hidden()) = the final norm of hidden (rows, hidden()).
  void FinalNorm(const float* hidden, std::int64_t rows, float* out);

  // Streams the vocabulary head over normed rows through their reducers.
  void Project(std::span<const kernels::HeadRow> rows);

  // Scratch memory held now.
  std::int64_t workspace_bytes() const;

  const OpSeconds& op_seconds() const { return op_seconds_; }

 private:
  // What a projection gives. K and V: those of `columns` that are asked for, K whole or not at all.
  struct Projections {
    float* kv = nullptr;
    kernels::Columns columns{};
    float* queries = nullptr;
  };
  void ProjectRows(std::int64_t layer, const float* hidden, std::int64_t rows,
                   const std::int32_t* positions, std::span<const RopeRun> rotations,
                   const Projections& to);
  void FinishRows(const LayerWeights& weights, const HeadRows& at, const Projections& to);
  void Attend(const float* queries, std::span<const AttentionSource> sources);
  // y (rows, hidden()) = or += attention's output times its projection.
  void ProjectAttention(const LayerWeights& weights, std::int64_t rows, float* y,
                        kernels::Store store);

  // Constant after construction.
  const Weights& weights_;
  kernels::WorkerPool& pool_;
  kernels::AttentionShape shape_;

  RopeTables rope_tables_;
  OpSeconds op_seconds_;

  // Scratch, overwritten by every call.
  kernels::AlignedBuffer<float> query_, attended_, before_;
  const float* queries_ = nullptr;
  std::vector<kernels::AttentionRequest> requests_;
  std::vector<RopeRun> rotations_;
  kernels::GemmWorkspace gemm_workspace_;
  FeedForward feed_forward_;
  kernels::AttentionWorkspace attention_workspace_;
  kernels::HeadWorkspace head_workspace_;
};

}  // namespace maskkv::transformer

#endif  // MASKKV_CORE_TRANSFORMER_TRANSFORMER_H_
