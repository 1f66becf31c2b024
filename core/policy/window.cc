// SPDX-License-Identifier: Apache-2.0
#include "core/policy/window.h"

#include <algorithm>

#include "core/base/status_macros.h"
#include "core/policy/arguments.h"
#include "core/policy/selection.h"

namespace maskkv::policy {
namespace {

constexpr std::int64_t kLargestWindow = 32;

}  // namespace

std::int64_t WindowSize(std::int64_t budget, std::int64_t prompt_tokens) {
  return std::min(std::clamp<std::int64_t>(budget / 2, 1, kLargestWindow), prompt_tokens);
}

absl::StatusOr<std::vector<std::int32_t>> SelectWithWindow(std::span<const float> prompt_scores,
                                                           std::int64_t k, std::int64_t window) {
  const auto prompt_tokens = static_cast<std::int64_t>(prompt_scores.size());
  MASKKV_RETURN_IF_ERROR(CheckInteger("k", k, 0, prompt_tokens));
  MASKKV_RETURN_IF_ERROR(CheckInteger("window", window, 0, prompt_tokens));
  MASKKV_RETURN_IF_ERROR(CheckScores(prompt_scores));
  const std::int64_t forced = std::min(window, k);
  const std::int64_t others = prompt_tokens - forced;
  MASKKV_ASSIGN_OR_RETURN(
      std::vector<std::int32_t> kept,
      SelectKept(prompt_scores.first(static_cast<std::size_t>(others)), k - forced));
  for (std::int64_t row = others; row < prompt_tokens; ++row) {
    kept.push_back(static_cast<std::int32_t>(row));
  }
  return kept;
}

}  // namespace maskkv::policy
