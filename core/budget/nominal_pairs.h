// SPDX-License-Identifier: Apache-2.0
//
// What a plan means in pairs, for metrics and for people: the budgets of a prompt that is longer
// than any of them, before rounding to whole pairs. Prefill allocates with core/policy on the
// prompt at hand. Pure function.
#ifndef MASKKV_CORE_BUDGET_NOMINAL_PAIRS_H_
#define MASKKV_CORE_BUDGET_NOMINAL_PAIRS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "core/budget/plan.h"

namespace maskkv::budget {

struct NominalPairs {
  std::vector<double> layers;  // mean of a head in each layer: k_base + (B - k_base) w_l
  std::vector<double> heads;   // layers * kv_heads: r k + (N k - sum of r k) P / sum of P
  double total = 0;            // of all layers and heads
};

// layers, kv_heads: of the model, 0 if not known; without layers there is nothing to say, without
// heads totals are those of one head. preference (layers * kv_heads), or empty: heads share evenly.
// Under a coverage the plan's max_budget is B: the most there can be.
// REQUIRES: Validate(plan) is OK and its sizes are of this model.
NominalPairs NominalPairsOf(const Plan& plan, std::int64_t layers, std::int64_t kv_heads,
                            std::span<const double> preference);

}  // namespace maskkv::budget

#endif  // MASKKV_CORE_BUDGET_NOMINAL_PAIRS_H_
