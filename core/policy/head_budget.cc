// SPDX-License-Identifier: Apache-2.0
#include "core/policy/head_budget.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/base/status_macros.h"
#include "core/policy/arguments.h"
#include "core/policy/exact_sum.h"
#include "core/policy/level.h"

namespace maskkv::policy {
namespace {

// Equation (15) without its floor.
std::vector<double> Claims(std::span<const double> preference, std::int64_t layer_budget,
                           double alpha) {
  const auto each = static_cast<double>(layer_budget);
  const double sum = ExactSum(preference);
  if (sum == 0) return std::vector<double>(preference.size(), each);
  const double by_preference = (1 - alpha) * (static_cast<double>(preference.size()) * each);
  std::vector<double> claims;
  claims.reserve(preference.size());
  for (const double p : preference) claims.push_back((alpha * each) + (by_preference * (p / sum)));
  return claims;
}

}  // namespace

absl::StatusOr<std::vector<std::int64_t>> AllocateHeadBudgets(std::span<const double> preference,
                                                              std::int64_t layer_budget,
                                                              double alpha,
                                                              std::int64_t prompt_tokens) {
  MASKKV_RETURN_IF_ERROR(CheckWeights("preference", "head", preference));
  MASKKV_RETURN_IF_ERROR(CheckRate("alpha", alpha));
  MASKKV_RETURN_IF_ERROR(CheckInteger("prompt_tokens", prompt_tokens, 0, kMaxPromptTokens));
  const std::int64_t least = std::min<std::int64_t>(prompt_tokens, 1);
  MASKKV_RETURN_IF_ERROR(CheckInteger("layer_budget", layer_budget, least, prompt_tokens));

  const std::vector<double> claims = Claims(preference, layer_budget, alpha);
  std::vector<std::int64_t> floors;
  std::vector<double> fractions;
  for (const double claim : claims) {
    floors.push_back(static_cast<std::int64_t>(std::floor(claim)));
    fractions.push_back(claim - std::floor(claim));
  }
  std::vector<std::int32_t> order(claims.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](std::int32_t a, std::int32_t b) {
    return fractions[static_cast<std::size_t>(a)] > fractions[static_cast<std::size_t>(b)];
  });
  return FillToTotal(floors, order, least, prompt_tokens,
                     layer_budget * static_cast<std::int64_t>(preference.size()));
}

}  // namespace maskkv::policy
