// SPDX-License-Identifier: Apache-2.0
#include "core/policy/pyramid.h"

#include "core/base/status_macros.h"
#include "core/policy/claims.h"
#include "core/policy/layer_budget.h"

namespace maskkv::policy {

absl::StatusOr<std::vector<std::int64_t>> PyramidLayerBudgets(std::int64_t layers,
                                                              std::int64_t budget,
                                                              std::int64_t prompt_tokens) {
  MASKKV_ASSIGN_OR_RETURN(std::vector<std::int64_t> uniform,
                          UniformLayerBudgets(layers, budget, prompt_tokens));
  if (layers == 1 || budget >= prompt_tokens) return uniform;
  const auto mean = static_cast<double>(budget);
  const double least = mean / 20;
  const double most = (2 * mean) - least;
  std::vector<double> claims;
  claims.reserve(uniform.size());
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    claims.push_back(
        most - ((static_cast<double>(layer) * (most - least)) / static_cast<double>(layers - 1)));
  }
  return NearestWithTotal(claims, 1, prompt_tokens, layers * budget);
}

}  // namespace maskkv::policy
