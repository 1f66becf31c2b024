// SPDX-License-Identifier: Apache-2.0
//
// How many prompt pairs each layer keeps: equations (9) to (13) of MaskKV (arXiv 2510.09309). A
// user names B, the mean number of pairs a KV head keeps in a layer. A layer's budget k_l is
// counted per head: a layer of N_h KV heads keeps N_h * k_l pairs, which head_budget.h shares out.
// First and last layer form the boundary group, the others the middle group; part of the budget
// follows the groups' importance.
//
// The arithmetic, so that another implementation agrees to the pair (+ - * / are IEEE double
// operations, rounded once each, in the order of the brackets; Sum is ExactSum, rounded once):
//
//   k_base = max(1, floor(beta * B))                                                    (9)
//   k_imp  = L * (B - k_base)                                    an integer             (10)
//   k_grpB = k_imp * (I_B / (I_B + I_M))         I_g = Sum of I(l) over the group       (11)
//   k_grpM = k_imp - k_grpB                                                             (12)
//   k_l    = k_base + floor(k_grp / |group|)                                            (13)
//
// What the equations leave open:
// - k_base is at least 1, because every head keeps at least one pair. (beta * B) stands for
//   beta * k_p / L, which is the same number without two of its roundings; the quotient of (11)
//   comes before its product so that no finite importance overflows.
// - Cap: k_l <= n_p. What floors and caps leave over goes out in rounds, one unit a layer, to the
//   layers below the cap: descending importance over all layers, ties to the lower index.
// - L <= 2: every layer is a boundary layer and gets B. All importances zero: B each.
// - B >= n_p: every layer gets n_p.
//
// Invariant of every result: sum == min(B, n_p) * L, and 1 <= k_l <= n_p when n_p >= 1; n_p == 0
// gives zeros. Pure functions, thread safe.
#ifndef MASKKV_CORE_POLICY_LAYER_BUDGET_H_
#define MASKKV_CORE_POLICY_LAYER_BUDGET_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

namespace maskkv::policy {

// The offline rule when `importance` is a measured profile, the online rule when it is what this
// very prompt showed: the same function.
//
// importance    (layers) f64, I(l) of equation (8), finite and >= 0; an importance of a prompt that
//               rounding made negative is the caller's to clamp.
// budget        B >= 1; may be larger than anything there is.
// beta          [0, 1]: the share of B that every layer gets, whatever its importance.
// prompt_tokens n_p in [0, 2^31 - 1].
// Returns: (layers) k_l.
// Errors: INVALID_ARGUMENT naming argument, found and expected.
absl::StatusOr<std::vector<std::int64_t>> AllocateLayerBudgets(std::span<const double> importance,
                                                               std::int64_t budget, double beta,
                                                               std::int64_t prompt_tokens);

// The uniform rule: min(B, n_p) for each of `layers` layers (1 to 2^20). Errors: as above.
absl::StatusOr<std::vector<std::int64_t>> UniformLayerBudgets(std::int64_t layers,
                                                              std::int64_t budget,
                                                              std::int64_t prompt_tokens);

}  // namespace maskkv::policy

#endif  // MASKKV_CORE_POLICY_LAYER_BUDGET_H_
