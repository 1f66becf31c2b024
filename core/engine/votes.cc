// SPDX-License-Identifier: Apache-2.0
#include "core/engine/votes.h"

#include <algorithm>
#include <utility>

#include "core/base/check.h"
#include "core/policy/window.h"
#include "kernels/attention/mask_scores.h"

namespace maskkv::engine {
namespace {

constexpr std::int64_t kQuarters = 4;

VotingRows Common(VotingRows a, VotingRows b) {
  return {std::max(a.begin, b.begin), std::min(a.end, b.end)};
}

// A quarter of the masks, 0 to 3; at least one row.
VotingRows Quarter(std::int64_t quarter, std::int64_t prompt_tokens, std::int64_t masks) {
  const std::int64_t begin = quarter * masks / kQuarters;
  const std::int64_t end = std::max((quarter + 1) * masks / kQuarters, begin + 1);
  return {prompt_tokens + begin, prompt_tokens + end};
}

}  // namespace

VotingRows VotersOf(const EvictionPlan& plan, std::int64_t prompt_tokens, std::int64_t masks) {
  const VotingRows all_masks{prompt_tokens, prompt_tokens + masks};
  if (plan.selection != Selection::kMaskKv) return all_masks;
  switch (plan.voters) {
    case Voters::kMasksFront:
      return Quarter(0, prompt_tokens, masks);
    case Voters::kMasksSecond:
      return Quarter(1, prompt_tokens, masks);
    case Voters::kMasksThird:
      return Quarter(2, prompt_tokens, masks);
    case Voters::kMasksBack:
      return Quarter(3, prompt_tokens, masks);
    case Voters::kPrompt:
      return {0, prompt_tokens};
    case Voters::kAll:
      return {0, prompt_tokens + masks};
    case Voters::kWindow:
      return {prompt_tokens - policy::WindowSize(plan.budget, prompt_tokens), prompt_tokens};
    case Voters::kMasks:
    case Voters::kRecent:
    case Voters::kRandom:
    case Voters::kFull:
      break;
  }
  return all_masks;
}

Votes::Votes(std::int64_t layers, std::int64_t prompt_tokens, std::int64_t masks,
             std::int64_t silent)
    : prompt_tokens_(prompt_tokens),
      rows_(prompt_tokens + masks + silent),
      sets_{{prompt_tokens, prompt_tokens + masks}},
      scores_(static_cast<std::size_t>(layers)) {}

std::size_t Votes::SetOf(VotingRows rows) {
  const auto found = std::ranges::find(sets_, rows);
  if (found != sets_.end()) return static_cast<std::size_t>(found - sets_.begin());
  sets_.push_back(rows);
  return sets_.size() - 1;
}

bool Votes::AnyVotes(std::int64_t begin, std::int64_t end) const {
  return std::ranges::any_of(sets_, [&](const VotingRows& set) {
    const VotingRows both = Common(set, {begin, end});
    return both.begin < both.end;
  });
}

void Votes::Begin(std::int64_t layer, const transformer::Transformer& transformer) {
  std::vector<Buffer>& scores = scores_[static_cast<std::size_t>(layer)];
  scores.resize(sets_.size());
  for (Buffer& buffer : scores) {
    buffer.Resize(transformer.shape().kv_heads * rows_);
    std::ranges::fill(buffer.span(), 0.0F);
  }
}

void Votes::Add(transformer::Transformer& transformer, std::int64_t layer,
                const AdvancedRows& advanced) {
  const kernels::AttentionShape& shape = transformer.shape();
  const std::int64_t width = transformer.query_width();
  const std::int64_t count = advanced.rows.end - advanced.rows.begin;
  for (std::size_t set = 0; set < sets_.size(); ++set) {
    const VotingRows voting = Common(sets_[set], advanced.rows);
    const std::int64_t voters = voting.end - voting.begin;
    if (voters <= 0) continue;
    const std::int64_t skipped = voting.begin - advanced.rows.begin;
    const float* log_sum_exp = advanced.log_sum_exp;
    if (voters < count) {
      log_sum_exp_.Resize(shape.heads * voters);
      for (std::int64_t head = 0; head < shape.heads; ++head) {
        std::copy_n(advanced.log_sum_exp + head * count + skipped, voters,
                    log_sum_exp_.data() + head * voters);
      }
      log_sum_exp = log_sum_exp_.data();
    }
    block_scores_.Resize(shape.kv_heads * rows_);
    kernels::MaskQueryScores(transformer.pool(), shape, advanced.queries + skipped * width, width,
                             voters, log_sum_exp, advanced.kv, 2 * transformer.kv_width(), rows_,
                             block_scores_.data(), transformer.attention_workspace());
    const std::span<float> total = scores_[static_cast<std::size_t>(layer)][set].span();
    const std::span<const float> block = std::as_const(block_scores_).span();
    std::ranges::transform(total, block, total.begin(), std::plus<>());
  }
}

std::span<const float> Votes::Scores(std::int64_t layer, std::size_t set) const {
  const std::vector<Buffer>& scores = scores_[static_cast<std::size_t>(layer)];
  MASKKV_CHECK(set < scores.size(), "a layer that was scored");
  return scores[set].span();
}

void Votes::Clear(std::int64_t layer) { scores_[static_cast<std::size_t>(layer)].clear(); }

}  // namespace maskkv::engine
