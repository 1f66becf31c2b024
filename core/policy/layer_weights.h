// SPDX-License-Identifier: Apache-2.0
//
// How many prompt pairs each layer keeps when each has a weight of its own: what a controller that
// learns from running requests hands out, in the place of the paper's two groups (layer_budget.h).
// Every layer gets the base of equation (9); the rest of the budget goes by weight.
//
// The arithmetic (IEEE double operations, in the order of the brackets; Sum is ExactSum):
//
//   k_base = max(1, floor(beta * B))
//   k_imp  = L * (B - k_base)                              an integer
//   x_l    = k_base + (k_imp * (w_l / Sum w))
//   k_l    = the integers in [1, n_p] with the sum L * B nearest to x: NearestWithTotal (claims.h)
//
// So remainders go by largest fraction, ties to the lower index, and what a layer cannot hold past
// n_p goes to the others. B >= n_p: every layer gets n_p. Equal weights give B each.
//
// Invariant of every result: sum == min(B, n_p) * L, and 1 <= k_l <= n_p when n_p >= 1; n_p == 0
// gives zeros. Raising one layer's weight (by more than the rounding of Sum w) never lowers its
// k_l. Pure function, thread safe.
#ifndef MASKKV_CORE_POLICY_LAYER_WEIGHTS_H_
#define MASKKV_CORE_POLICY_LAYER_WEIGHTS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace maskkv::policy {

// OK if `weights` has 1 to 2^20 values, each finite and >= 0, with a finite sum over zero.
// Errors: INVALID_ARGUMENT naming the layer, found and expected.
absl::Status CheckLayerWeights(std::span<const double> weights);

// weights       (layers) f64, as CheckLayerWeights asks; only their proportions count.
// budget        B >= 1; may be larger than anything there is.
// beta          [0, 1]: the share of B that every layer gets, whatever its weight.
// prompt_tokens n_p in [0, 2^31 - 1].
// Returns: (layers) k_l, pairs per head.
// Errors: INVALID_ARGUMENT naming argument, found and expected.
absl::StatusOr<std::vector<std::int64_t>> AllocateLayersByWeight(std::span<const double> weights,
                                                                 std::int64_t budget, double beta,
                                                                 std::int64_t prompt_tokens);

}  // namespace maskkv::policy

#endif  // MASKKV_CORE_POLICY_LAYER_WEIGHTS_H_
