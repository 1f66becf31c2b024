// SPDX-License-Identifier: Apache-2.0
#include "core/policy/layer_budget.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/base/check.h"
#include "core/base/status_macros.h"
#include "core/policy/arguments.h"
#include "core/policy/exact_sum.h"
#include "core/policy/level.h"

namespace maskkv::policy {
namespace {

constexpr std::int64_t kBoundaryLayers = 2;

absl::Status CheckBudget(std::int64_t budget, std::int64_t prompt_tokens) {
  MASKKV_RETURN_IF_ERROR(
      CheckInteger("budget", budget, 1, std::numeric_limits<std::int64_t>::max()));
  return CheckInteger("prompt_tokens", prompt_tokens, 0, kMaxPromptTokens);
}

// Equations (9) to (13), before cap and remainder. REQUIRES: more layers than the boundary has.
std::vector<std::int64_t> FloorsByImportance(std::span<const double> importance,
                                             std::int64_t budget, double beta) {
  const auto layers = static_cast<std::int64_t>(importance.size());
  const double boundary = ExactSum(std::vector{importance.front(), importance.back()});
  const double middle = ExactSum(importance.subspan(1, importance.size() - kBoundaryLayers));
  const auto base = std::max(
      std::int64_t{1}, static_cast<std::int64_t>(std::floor(beta * static_cast<double>(budget))));
  const auto by_importance = static_cast<double>(layers * (budget - base));
  const double of_boundary = by_importance * (boundary / (boundary + middle));
  const double of_middle = by_importance - of_boundary;
  const auto share = [base](double of_group, std::int64_t group) {
    return base + static_cast<std::int64_t>(std::floor(of_group / static_cast<double>(group)));
  };
  std::vector<std::int64_t> floors(importance.size(), share(of_middle, layers - kBoundaryLayers));
  floors.front() = floors.back() = share(of_boundary, kBoundaryLayers);
  return floors;
}

}  // namespace

absl::StatusOr<std::vector<std::int64_t>> AllocateLayerBudgets(std::span<const double> importance,
                                                               std::int64_t budget, double beta,
                                                               std::int64_t prompt_tokens) {
  MASKKV_RETURN_IF_ERROR(CheckWeights("importance", "layer", importance));
  MASKKV_RETURN_IF_ERROR(CheckBudget(budget, prompt_tokens));
  MASKKV_RETURN_IF_ERROR(CheckRate("beta", beta));
  const auto layers = static_cast<std::int64_t>(importance.size());
  const bool all_zero = std::ranges::all_of(importance, [](double i) { return i == 0; });
  if (layers <= kBoundaryLayers || all_zero || budget >= prompt_tokens) {
    return UniformLayerBudgets(layers, budget, prompt_tokens);
  }
  const std::vector<std::int64_t> floors = FloorsByImportance(importance, budget, beta);
  std::vector<std::int32_t> order(importance.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](std::int32_t a, std::int32_t b) {
    return importance[static_cast<std::size_t>(a)] > importance[static_cast<std::size_t>(b)];
  });
  return FillToTotal(floors, order, 1, prompt_tokens, layers * budget);
}

absl::StatusOr<std::vector<std::int64_t>> UniformLayerBudgets(std::int64_t layers,
                                                              std::int64_t budget,
                                                              std::int64_t prompt_tokens) {
  MASKKV_RETURN_IF_ERROR(CheckInteger("layers", layers, 1, kMaxUnits));
  MASKKV_RETURN_IF_ERROR(CheckBudget(budget, prompt_tokens));
  return std::vector<std::int64_t>(static_cast<std::size_t>(layers),
                                   std::min(budget, prompt_tokens));
}

}  // namespace maskkv::policy
