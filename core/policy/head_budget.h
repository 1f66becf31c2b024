// SPDX-License-Identifier: Apache-2.0
//
// How many prompt pairs each KV head of a layer keeps: equation (15) of MaskKV (arXiv 2510.09309).
// Heads that read the prompt (large preference P_h, preference.h) get more of the layer's
// N_h * k_l pairs than heads that plan structure among the masks.
//
// The arithmetic, so that another implementation agrees to the pair (IEEE double operations, in the
// order of the brackets; Sum is ExactSum, rounded once):
//
//   x_h  = (alpha * k_l) + (((1 - alpha) * (N_h * k_l)) * (P_h / Sum P))
//   k_lh = floor(x_h), then the clamp and the remainder
//
// With a base rate a_h for each head (a controller's floors) in alpha's place:
//
//   V    = ((1 - a_min) * (N_h * k_l)) - (k_l * Sum(a_j - a_min))    a_min the smallest rate
//   x_h  = (a_h * k_l) + (V * (P_h / Sum P))
//
// where V is what the bases leave of N_h * k_l; written so that equal rates give equation (15) bit
// for bit.
//
// What the equation leaves open is one rule: the integers in [1, n_p] with the sum N_h * k_l that
// are nearest to x (claims.h). So a remainder goes by largest fraction, what a head cannot hold
// past n_p stays in the layer, and every head keeps at least one pair. All preferences zero: x_h =
// k_l.
//
// Invariant of every result: sum == k_l * N_h, and 1 <= k_lh <= n_p when n_p >= 1. A permutation of
// heads with distinct preferences permutes the budgets, unless the last pair is a tie between equal
// fractions, which the lower index wins. Pure function, thread safe.
#ifndef MASKKV_CORE_POLICY_HEAD_BUDGET_H_
#define MASKKV_CORE_POLICY_HEAD_BUDGET_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

namespace maskkv::policy {

// preference    (heads) f64, P_h of equation (14), finite and >= 0.
// layer_budget  k_l, pairs per head: 1 to n_p; 0 if n_p == 0.
// alpha         [0, 1]: the share of the layer that is split evenly.
// prompt_tokens n_p in [0, 2^31 - 1].
// Returns: (heads) pairs of each head.
// Errors: INVALID_ARGUMENT naming argument, found and expected.
absl::StatusOr<std::vector<std::int64_t>> AllocateHeadBudgets(std::span<const double> preference,
                                                              std::int64_t layer_budget,
                                                              double alpha,
                                                              std::int64_t prompt_tokens);

// The same with a base rate for each head: head_rates (heads), each in [0, 1].
absl::StatusOr<std::vector<std::int64_t>> AllocateHeadBudgets(std::span<const double> preference,
                                                              std::int64_t layer_budget,
                                                              std::span<const double> head_rates,
                                                              std::int64_t prompt_tokens);

// x above. REQUIRES: what AllocateHeadBudgets checks.
std::vector<double> HeadClaims(std::span<const double> preference, std::int64_t layer_budget,
                               std::span<const double> head_rates);

}  // namespace maskkv::policy

#endif  // MASKKV_CORE_POLICY_HEAD_BUDGET_H_
