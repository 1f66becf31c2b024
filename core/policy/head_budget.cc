// SPDX-License-Identifier: Apache-2.0
#include "core/policy/head_budget.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "core/policy/arguments.h"
#include "core/policy/claims.h"
#include "core/policy/exact_sum.h"

namespace maskkv::policy {
namespace {

// What the base rates leave of the layer's pairs, V of the header.
double LeftByRates(std::span<const double> head_rates, double each) {
  const double least = *std::ranges::min_element(head_rates);
  std::vector<double> above;
  above.reserve(head_rates.size());
  for (const double rate : head_rates) above.push_back(rate - least);
  return ((1 - least) * (static_cast<double>(head_rates.size()) * each)) - (each * ExactSum(above));
}

}  // namespace

std::vector<double> HeadClaims(std::span<const double> preference, std::int64_t layer_budget,
                               std::span<const double> head_rates) {
  const auto each = static_cast<double>(layer_budget);
  const double sum = ExactSum(preference);
  if (sum == 0) return std::vector<double>(preference.size(), each);
  const double by_preference = LeftByRates(head_rates, each);
  std::vector<double> claims;
  claims.reserve(preference.size());
  for (std::size_t h = 0; h < preference.size(); ++h) {
    claims.push_back((head_rates[h] * each) + (by_preference * (preference[h] / sum)));
  }
  return claims;
}

absl::StatusOr<std::vector<std::int64_t>> AllocateHeadBudgets(std::span<const double> preference,
                                                              std::int64_t layer_budget,
                                                              double alpha,
                                                              std::int64_t prompt_tokens) {
  MASKKV_RETURN_IF_ERROR(CheckWeights("preference", "head", preference));
  MASKKV_RETURN_IF_ERROR(CheckRate("alpha", alpha));
  return AllocateHeadBudgets(preference, layer_budget,
                             std::vector<double>(preference.size(), alpha), prompt_tokens);
}

absl::StatusOr<std::vector<std::int64_t>> AllocateHeadBudgets(std::span<const double> preference,
                                                              std::int64_t layer_budget,
                                                              std::span<const double> head_rates,
                                                              std::int64_t prompt_tokens) {
  MASKKV_RETURN_IF_ERROR(CheckWeights("preference", "head", preference));
  if (head_rates.size() != preference.size()) {
    return absl::InvalidArgumentError(absl::StrFormat("head_rates: expected %d heads, found %d",
                                                      preference.size(), head_rates.size()));
  }
  for (std::size_t h = 0; h < head_rates.size(); ++h) {
    MASKKV_RETURN_IF_ERROR(CheckRate(absl::StrFormat("head_rates: head %d", h), head_rates[h]));
  }
  MASKKV_RETURN_IF_ERROR(CheckInteger("prompt_tokens", prompt_tokens, 0, kMaxPromptTokens));
  const std::int64_t least = std::min<std::int64_t>(prompt_tokens, 1);
  MASKKV_RETURN_IF_ERROR(CheckInteger("layer_budget", layer_budget, least, prompt_tokens));
  return NearestWithTotal(HeadClaims(preference, layer_budget, head_rates), least, prompt_tokens,
                          layer_budget * static_cast<std::int64_t>(preference.size()));
}

}  // namespace maskkv::policy
