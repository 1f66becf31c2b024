// SPDX-License-Identifier: Apache-2.0
#include "core/policy/preference.h"

#include <numeric>

#include "core/base/status_macros.h"
#include "core/policy/arguments.h"

namespace maskkv::policy {

absl::StatusOr<HeadVote> PromptPreference(std::span<const float> scores,
                                          std::int64_t prompt_tokens) {
  MASKKV_RETURN_IF_ERROR(
      CheckInteger("prompt_tokens", prompt_tokens, 0, static_cast<std::int64_t>(scores.size())));
  MASKKV_RETURN_IF_ERROR(CheckScores(scores));
  const auto split = scores.begin() + prompt_tokens;
  HeadVote vote{.prompt_mass = std::accumulate(scores.begin(), split, 0.0),
                .mask_mass = std::accumulate(split, scores.end(), 0.0)};
  const double all = vote.prompt_mass + vote.mask_mass;
  if (all > 0) vote.preference = vote.prompt_mass / all;
  return vote;
}

}  // namespace maskkv::policy
