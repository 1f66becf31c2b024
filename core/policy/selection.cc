// SPDX-License-Identifier: Apache-2.0
#include "core/policy/selection.h"

#include "core/base/status_macros.h"
#include "core/policy/arguments.h"
#include "kernels/select/top_k.h"

namespace maskkv::policy {

absl::StatusOr<std::vector<std::int32_t>> SelectKept(std::span<const float> prompt_scores,
                                                     std::int64_t k) {
  const auto prompt_tokens = static_cast<std::int64_t>(prompt_scores.size());
  MASKKV_RETURN_IF_ERROR(CheckInteger("prompt_tokens", prompt_tokens, 0, kMaxPromptTokens));
  MASKKV_RETURN_IF_ERROR(CheckInteger("k", k, 0, prompt_tokens));
  MASKKV_RETURN_IF_ERROR(CheckScores(prompt_scores));
  std::vector<std::int32_t> kept(static_cast<std::size_t>(k));
  kernels::SelectTopK(prompt_scores, k, kept);
  return kept;
}

double KeptMass(std::span<const float> prompt_scores, std::span<const std::int32_t> kept) {
  double mass = 0;
  for (const std::int32_t position : kept) {
    mass += prompt_scores[static_cast<std::size_t>(position)];
  }
  return mass;
}

}  // namespace maskkv::policy
