// SPDX-License-Identifier: Apache-2.0
#include "core/policy/layer_decision.h"

#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "core/policy/arguments.h"
#include "core/policy/head_budget.h"
#include "core/policy/preference.h"
#include "core/policy/selection.h"

namespace maskkv::policy {

absl::StatusOr<LayerDecision> DecideLayer(std::span<const float> scores, std::int64_t keys,
                                          std::int64_t prompt_tokens, std::int64_t layer_budget,
                                          double alpha) {
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
  MASKKV_ASSIGN_OR_RETURN(
      const std::vector<std::int64_t> pairs,
      AllocateHeadBudgets(decision.preference, layer_budget, alpha, prompt_tokens));
  for (std::size_t head = 0; head < pairs.size(); ++head) {
    const auto of_prompt = scores.subspan(head * row, static_cast<std::size_t>(prompt_tokens));
    MASKKV_ASSIGN_OR_RETURN(std::vector<std::int32_t> kept, SelectKept(of_prompt, pairs[head]));
    decision.kept_mass.push_back(KeptMass(of_prompt, kept));
    decision.kept.push_back(std::move(kept));
  }
  return decision;
}

}  // namespace maskkv::policy
