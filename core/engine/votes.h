// SPDX-License-Identifier: Apache-2.0
//
// The scores of one layer by several sets of voting rows: what the cuts of one forward need between
// them. The masks' set is always there, because what is kept is measured by it. Rows of the prompt
// are scored block by block, as the forward advances them, so their queries are never all held; a
// set's scores depend on its own rows alone, bit for bit, whatever other sets there are.
//
// Owns its scores and scratch. Not thread safe: it uses the transformer's pool and workspace.
#ifndef MASKKV_CORE_ENGINE_VOTES_H_
#define MASKKV_CORE_ENGINE_VOTES_H_

#include <cstdint>
#include <span>
#include <vector>

#include "core/engine/eviction_plan.h"
#include "core/transformer/transformer.h"
#include "kernels/base/aligned_buffer.h"

namespace maskkv::engine {

// Rows [begin, end) of those that may vote: prompt rows first, then response rows. Response rows
// that are committed are keys only and are not counted.
struct VotingRows {
  std::int64_t begin = 0;
  std::int64_t end = 0;

  bool operator==(const VotingRows&) const = default;
};

// The rows whose attention scores the plan's pairs; all response rows that may vote where nobody
// does. REQUIRES: a valid plan, prompt_tokens >= 0, masks >= 1 response rows that may vote.
VotingRows VotersOf(const EvictionPlan& plan, std::int64_t prompt_tokens, std::int64_t masks);

// Consecutive rows of a layer that were just advanced.
struct AdvancedRows {
  VotingRows rows;
  const float* queries = nullptr;      // (rows, query_width)
  const float* log_sum_exp = nullptr;  // (heads, rows)
  const float* kv = nullptr;           // of all rows of the forward: (rows, 2 * kv_width)
};

class Votes {
 public:
  // prompt_tokens >= 0 prompt rows, masks >= 1 response rows that vote and `silent` ones that do
  // not. Set 0 is all that vote.
  Votes(std::int64_t layers, std::int64_t prompt_tokens, std::int64_t masks,
        std::int64_t silent = 0);

  // Which set the rows are, which is made if it is new. Before the first layer.
  std::size_t SetOf(VotingRows rows);

  // Whether a row of [begin, end) votes.
  bool AnyVotes(std::int64_t begin, std::int64_t end) const;

  // A layer's scores, all zero, of every set.
  void Begin(std::int64_t layer, const transformer::Transformer& transformer);

  // Adds what the rows' attention gives every key to the sets that they belong to. Prompt rows come
  // in ascending blocks, then all response rows at once.
  void Add(transformer::Transformer& transformer, std::int64_t layer, const AdvancedRows& advanced);

  // (kv_heads, rows), over all keys, in the order of the forward. REQUIRES: Begin(layer), not
  // cleared.
  std::span<const float> Scores(std::int64_t layer, std::size_t set) const;

  // Frees a layer's scores.
  void Clear(std::int64_t layer);

 private:
  using Buffer = kernels::AlignedBuffer<float>;

  // Constant after construction.
  const std::int64_t prompt_tokens_;
  const std::int64_t rows_;

  std::vector<VotingRows> sets_;
  std::vector<std::vector<Buffer>> scores_;  // a layer, a set: (kv_heads, rows)
  Buffer block_scores_;                      // (kv_heads, rows) of one block
  Buffer log_sum_exp_;                       // (heads, rows of a block that are in a set)
};

}  // namespace maskkv::engine

#endif  // MASKKV_CORE_ENGINE_VOTES_H_
