// SPDX-License-Identifier: Apache-2.0
#include "core/policy/layer_weights.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/base/status_macros.h"
#include "core/policy/arguments.h"
#include "core/policy/claims.h"
#include "core/policy/exact_sum.h"

namespace maskkv::policy {

absl::Status CheckLayerWeights(std::span<const double> weights) {
  MASKKV_RETURN_IF_ERROR(CheckWeights("layer_weights", "layer", weights));
  if (std::ranges::any_of(weights, [](double w) { return w > 0; })) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "layer_weights: expected a weight over zero for at least one layer, found none");
}

absl::StatusOr<std::vector<std::int64_t>> AllocateLayersByWeight(std::span<const double> weights,
                                                                 std::int64_t budget, double beta,
                                                                 std::int64_t prompt_tokens) {
  MASKKV_RETURN_IF_ERROR(CheckLayerWeights(weights));
  MASKKV_RETURN_IF_ERROR(
      CheckInteger("budget", budget, 1, std::numeric_limits<std::int64_t>::max()));
  MASKKV_RETURN_IF_ERROR(CheckInteger("prompt_tokens", prompt_tokens, 0, kMaxPromptTokens));
  MASKKV_RETURN_IF_ERROR(CheckRate("beta", beta));
  if (budget >= prompt_tokens) return std::vector<std::int64_t>(weights.size(), prompt_tokens);

  const auto layers = static_cast<std::int64_t>(weights.size());
  const double base = std::max(1.0, std::floor(beta * static_cast<double>(budget)));
  const auto by_weight = static_cast<double>(layers * (budget - static_cast<std::int64_t>(base)));
  const double sum = ExactSum(weights);
  std::vector<double> claims;
  claims.reserve(weights.size());
  for (const double weight : weights) claims.push_back(base + (by_weight * (weight / sum)));
  return NearestWithTotal(claims, 1, prompt_tokens, layers * budget);
}

}  // namespace maskkv::policy
