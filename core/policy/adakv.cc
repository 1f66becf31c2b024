// SPDX-License-Identifier: Apache-2.0
#include "core/policy/adakv.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "core/policy/arguments.h"
#include "core/policy/claims.h"
#include "core/policy/pair_pool.h"

namespace maskkv::policy {
namespace {

constexpr double kEven = 0.2;
constexpr double kPooled = 0.8;

}  // namespace

absl::StatusOr<std::vector<std::vector<std::int32_t>>> SelectPooled(std::span<const float> scores,
                                                                    std::int64_t keys,
                                                                    std::int64_t prompt_tokens,
                                                                    std::int64_t layer_budget,
                                                                    std::int64_t forced) {
  MASKKV_RETURN_IF_ERROR(CheckInteger("keys", keys, 1, kMaxPromptTokens));
  MASKKV_RETURN_IF_ERROR(CheckInteger("prompt_tokens", prompt_tokens, 0, keys));
  MASKKV_RETURN_IF_ERROR(CheckInteger("layer_budget", layer_budget,
                                      std::min<std::int64_t>(prompt_tokens, 1), prompt_tokens));
  MASKKV_RETURN_IF_ERROR(CheckInteger("forced", forced, 0, layer_budget));
  const auto values = static_cast<std::int64_t>(scores.size());
  if (values == 0 || values % keys != 0 || values / keys > kMaxUnits) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "scores: expected 1 to %d times %d values (keys), found %d", kMaxUnits, keys, values));
  }
  const std::int64_t heads = values / keys;
  PairPool pool(heads, heads * (layer_budget - forced));
  MASKKV_RETURN_IF_ERROR(pool.AddLayer(scores, keys, prompt_tokens - forced));
  std::vector<std::vector<std::int32_t>> kept;
  for (std::int64_t head = 0; head < heads; ++head) {
    std::vector<std::int32_t>& rows = kept.emplace_back(pool.Kept(0, head));
    for (std::int64_t row = prompt_tokens - forced; row < prompt_tokens; ++row) {
      rows.push_back(static_cast<std::int32_t>(row));
    }
  }
  return kept;
}

absl::StatusOr<std::vector<std::int64_t>> AdaKvHeadBudgets(std::span<const float> scores,
                                                           std::int64_t keys,
                                                           std::int64_t prompt_tokens,
                                                           std::int64_t layer_budget,
                                                           std::int64_t forced) {
  MASKKV_ASSIGN_OR_RETURN(const auto pooled,
                          SelectPooled(scores, keys, prompt_tokens, layer_budget, forced));
  const double even =
      static_cast<double>(forced) + (kEven * static_cast<double>(layer_budget - forced));
  std::vector<double> claims;
  claims.reserve(pooled.size());
  for (const auto& rows : pooled) {
    claims.push_back(even + (kPooled * static_cast<double>(std::ssize(rows) - forced)));
  }
  const std::int64_t low = std::min(prompt_tokens, std::max<std::int64_t>(1, forced));
  return NearestWithTotal(claims, low, prompt_tokens, layer_budget * std::ssize(pooled));
}

}  // namespace maskkv::policy
