// SPDX-License-Identifier: Apache-2.0
#include "core/engine/keep.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/error.h"
#include "core/base/status_macros.h"
#include "core/policy/layer_decision.h"
#include "core/policy/preference.h"
#include "core/policy/recent.h"
#include "core/policy/selection.h"
#include "core/policy/window.h"
#include "kernels/select/top_k.h"

namespace maskkv::engine {
namespace {

std::vector<std::int32_t> AllRows(std::int64_t prompt_tokens) {
  std::vector<std::int32_t> rows(static_cast<std::size_t>(prompt_tokens));
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

// The first `count` of a Fisher-Yates shuffle, ascending. The engine's output and the modulus are
// fixed by the standard and by us, so a seed means the same rows everywhere; the modulus' bias is
// below 2^-30 for any prompt.
std::vector<std::int32_t> RandomRows(std::int64_t prompt_tokens, std::int64_t count,
                                     std::mt19937_64& random) {
  std::vector<std::int32_t> rows = AllRows(prompt_tokens);
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
    std::swap(rows[i], rows[i + random() % (rows.size() - i)]);
  }
  rows.resize(static_cast<std::size_t>(count));
  std::sort(rows.begin(), rows.end());
  return rows;
}

// Kept rows of policies without votes.
std::vector<std::vector<std::int32_t>> KeepUnscored(const EvictionPlan& plan, std::int64_t layer,
                                                    std::int64_t pairs, std::int64_t kv_heads,
                                                    std::int64_t prompt_tokens) {
  std::vector<std::vector<std::int32_t>> kept;
  std::seed_seq seeds{plan.random_seed & 0xffffffffU, plan.random_seed >> 32,
                      static_cast<std::uint64_t>(layer)};
  std::mt19937_64 random(seeds);
  for (std::int64_t head = 0; head < kv_heads; ++head) {
    kept.push_back(plan.selection == Selection::kFull ? AllRows(prompt_tokens)
                   : plan.Parts().voters == Voters::kRecent
                       ? policy::SelectRecent(pairs, prompt_tokens)
                       : RandomRows(prompt_tokens, pairs, random));
  }
  return kept;
}

bool HasVotes(const EvictionPlan& plan) {
  return plan.selection == Selection::kMaskKv && plan.voters != Voters::kRecent &&
         plan.voters != Voters::kRandom;
}

absl::StatusOr<policy::LayerDecision> KeepScored(const EvictionPlan& plan, std::int64_t layer,
                                                 std::int64_t pairs, std::int64_t kv_heads,
                                                 std::span<const float> scores,
                                                 std::int64_t prompt_tokens) {
  const auto keys = static_cast<std::int64_t>(scores.size()) / kv_heads;
  if (plan.coverage > 0) {
    return policy::DecideLayerByCoverage(scores, keys, prompt_tokens, plan.coverage,
                                         plan.max_budget);
  }
  policy::HeadSplit split{.rule = plan.head_rule, .rates = {&plan.alpha, 1}};
  if (!plan.head_rates.empty()) {
    split.rates = std::span(plan.head_rates)
                      .subspan(static_cast<std::size_t>(layer * kv_heads),
                               static_cast<std::size_t>(kv_heads));
  }
  if (plan.voters == Voters::kWindow) {
    split.window = policy::WindowSize(plan.budget, prompt_tokens);
  }
  return policy::DecideLayer(scores, keys, prompt_tokens, pairs, split);
}

}  // namespace

absl::Status CheckLayerScores(std::int64_t layer, const LayerScores& scores) {
  if (!kernels::AnyNan(scores.voting) && !kernels::AnyNan(scores.masks)) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kDataLoss, "NOT_FINITE",
      absl::StrFormat("layer %d: expected numbers as scores, found NaN: the weights are broken",
                      layer));
}

absl::StatusOr<KeptLayer> KeepPairs(const EvictionPlan& plan, std::int64_t layer,
                                    std::int64_t layer_budget, std::int64_t kv_heads,
                                    const LayerScores& scores, std::int64_t prompt_tokens) {
  MASKKV_RETURN_IF_ERROR(CheckLayerScores(layer, scores));
  const std::int64_t pairs = std::min(layer_budget, prompt_tokens);
  KeptLayer kept;
  const bool scored = HasVotes(plan);
  if (scored) {
    MASKKV_ASSIGN_OR_RETURN(policy::LayerDecision decision,
                            KeepScored(plan, layer, pairs, kv_heads, scores.voting, prompt_tokens));
    kept.rows = std::move(decision.kept);
    kept.preference = std::move(decision.preference);
    if (scores.voting.data() == scores.masks.data()) {
      kept.prompt_mass = std::move(decision.prompt_mass);
      kept.kept_mass = std::move(decision.kept_mass);
      return kept;
    }
  } else {
    kept.rows = KeepUnscored(plan, layer, pairs, kv_heads, prompt_tokens);
  }
  const std::size_t keys = scores.masks.size() / static_cast<std::size_t>(kv_heads);
  for (std::size_t head = 0; head < kept.rows.size(); ++head) {
    const std::span<const float> row = scores.masks.subspan(head * keys, keys);
    MASKKV_ASSIGN_OR_RETURN(const policy::HeadVote vote,
                            policy::PromptPreference(row, prompt_tokens));
    if (!scored) kept.preference.push_back(vote.preference);
    kept.prompt_mass.push_back(vote.prompt_mass);
    kept.kept_mass.push_back(policy::KeptMass(row, kept.rows[head]));
  }
  return kept;
}

}  // namespace maskkv::engine
