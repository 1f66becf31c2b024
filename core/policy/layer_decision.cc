// SPDX-License-Identifier: Apache-2.0
#include "core/policy/layer_decision.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "core/policy/adakv.h"
#include "core/policy/arguments.h"
#include "core/policy/coverage.h"
#include "core/policy/head_budget.h"
#include "core/policy/preference.h"
#include "core/policy/selection.h"
#include "core/policy/window.h"

namespace maskkv::policy {
namespace {

// Preferences and prompt masses of every head; nothing is kept yet.
absl::StatusOr<LayerDecision> Vote(std::span<const float> scores, std::int64_t keys,
                                   std::int64_t prompt_tokens) {
  MASKKV_RETURN_IF_ERROR(CheckInteger("keys", keys, 1, kMaxPromptTokens));
  MASKKV_RETURN_IF_ERROR(CheckInteger("prompt_tokens", prompt_tokens, 0, keys));
  const auto row = static_cast<std::size_t>(keys);
  if (scores.empty() || scores.size() % row != 0) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "scores: expected a positive multiple of %d values (keys), found %d", keys, scores.size()));
  }
  LayerDecision decision;
  for (std::size_t head = 0; head < scores.size() / row; ++head) {
    const auto vote = PromptPreference(scores.subspan(head * row, row), prompt_tokens);
    if (!vote.ok()) {
      return absl::InvalidArgumentError(
          absl::StrFormat("head %d: %s", head, vote.status().message()));
    }
    decision.preference.push_back(vote->preference);
    decision.prompt_mass.push_back(vote->prompt_mass);
  }
  return decision;
}

// Pairs of each head under a rule that counts before it selects.
absl::StatusOr<std::vector<std::int64_t>> HeadBudgets(std::span<const float> scores,
                                                      std::int64_t keys, std::int64_t prompt_tokens,
                                                      std::int64_t layer_budget,
                                                      std::span<const double> preference,
                                                      const HeadSplit& split) {
  switch (split.rule) {
    case HeadRule::kUniform:
      MASKKV_RETURN_IF_ERROR(CheckInteger("layer_budget", layer_budget,
                                          std::min<std::int64_t>(prompt_tokens, 1), prompt_tokens));
      return std::vector<std::int64_t>(preference.size(), layer_budget);
    case HeadRule::kAdaKv:
      return AdaKvHeadBudgets(scores, keys, prompt_tokens, layer_budget,
                              std::min(split.window, layer_budget));
    case HeadRule::kPreference:
    case HeadRule::kPool:
      break;
  }
  return split.rates.size() == 1
             ? AllocateHeadBudgets(preference, layer_budget, split.rates.front(), prompt_tokens)
             : AllocateHeadBudgets(preference, layer_budget, split.rates, prompt_tokens);
}

}  // namespace

absl::StatusOr<LayerDecision> DecideLayer(std::span<const float> scores, std::int64_t keys,
                                          std::int64_t prompt_tokens, std::int64_t layer_budget,
                                          const HeadSplit& split) {
  MASKKV_ASSIGN_OR_RETURN(LayerDecision decision, Vote(scores, keys, prompt_tokens));
  const auto of_prompt = [&](std::size_t head) {
    return scores.subspan(head * static_cast<std::size_t>(keys),
                          static_cast<std::size_t>(prompt_tokens));
  };
  if (split.rule == HeadRule::kPool) {
    MASKKV_ASSIGN_OR_RETURN(decision.kept, SelectPooled(scores, keys, prompt_tokens, layer_budget,
                                                        std::min(split.window, layer_budget)));
  } else {
    MASKKV_ASSIGN_OR_RETURN(
        const std::vector<std::int64_t> pairs,
        HeadBudgets(scores, keys, prompt_tokens, layer_budget, decision.preference, split));
    for (std::size_t head = 0; head < pairs.size(); ++head) {
      MASKKV_ASSIGN_OR_RETURN(decision.kept.emplace_back(),
                              SelectWithWindow(of_prompt(head), pairs[head], split.window));
    }
  }
  for (std::size_t head = 0; head < decision.kept.size(); ++head) {
    decision.kept_mass.push_back(KeptMass(of_prompt(head), decision.kept[head]));
  }
  return decision;
}

absl::StatusOr<LayerDecision> DecideLayerByCoverage(std::span<const float> scores,
                                                    std::int64_t keys, std::int64_t prompt_tokens,
                                                    double coverage, std::int64_t max_budget) {
  MASKKV_ASSIGN_OR_RETURN(LayerDecision decision, Vote(scores, keys, prompt_tokens));
  MASKKV_ASSIGN_OR_RETURN(decision.kept,
                          SelectByCoverage(scores, keys, prompt_tokens, coverage, max_budget));
  for (std::size_t head = 0; head < decision.kept.size(); ++head) {
    decision.kept_mass.push_back(
        KeptMass(scores.subspan(head * static_cast<std::size_t>(keys)), decision.kept[head]));
  }
  return decision;
}

}  // namespace maskkv::policy
