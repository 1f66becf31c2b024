// SPDX-License-Identifier: Apache-2.0
#include "core/budget/nominal_pairs.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "core/budget/shares.h"

namespace maskkv::budget {
namespace {

// The heads of one layer with `pairs` of each on average.
void AppendHeads(double pairs, std::span<const double> rates, std::span<const double> preference,
                 std::vector<double>& heads) {
  double base = 0, preferred = 0;
  for (const double rate : rates) base += rate * pairs;
  for (const double share : preference) preferred += share;
  const auto count = static_cast<double>(rates.size());
  const double rest = count * pairs - base;
  for (std::size_t i = 0; i < rates.size(); ++i) {
    const double part = preferred > 0 ? preference[i] / preferred : 1 / count;
    heads.push_back(rates[i] * pairs + rest * part);
  }
}

}  // namespace

NominalPairs NominalPairsOf(const Plan& plan, std::int64_t layers, std::int64_t kv_heads,
                            std::span<const double> preference) {
  NominalPairs pairs;
  const auto amount = static_cast<double>(plan.coverage > 0 ? plan.max_budget : plan.budget);
  const double base = std::min(amount, std::max(1.0, std::floor(plan.beta * amount)));
  const std::vector<double> weights =
      plan.layer_weights.empty() ? StartWeights(plan.importance, layers) : plan.layer_weights;
  for (const double weight : weights) pairs.layers.push_back(base + (amount - base) * weight);
  const auto heads = static_cast<std::size_t>(kv_heads);
  const std::vector<double> alphas(heads, plan.alpha);
  for (std::size_t layer = 0; heads > 0 && layer < pairs.layers.size(); ++layer) {
    const std::span<const double> rates =
        plan.head_rates.empty() ? std::span<const double>(alphas)
                                : std::span(plan.head_rates).subspan(layer * heads, heads);
    AppendHeads(pairs.layers[layer], rates,
                preference.empty() ? preference : preference.subspan(layer * heads, heads),
                pairs.heads);
  }
  for (const double layer : pairs.layers)
    pairs.total += layer * std::max(1.0, static_cast<double>(heads));
  return pairs;
}

}  // namespace maskkv::budget
