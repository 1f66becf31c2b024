// SPDX-License-Identifier: Apache-2.0
//
// Layer budgets that fall linearly from the first layer to the last, as PyramidKV (arXiv
// 2406.02069) gives them: lower layers read broadly, upper ones a few pairs.
//
//   min = B / 20     max = (2 * B) - min
//   x_l = max - ((l * (max - min)) / (L - 1))          L = 1: x_0 = B
//
// (IEEE double operations, in the order of the brackets), made whole by NearestWithTotal (claims.h)
// in [1, n_p] with the sum L * min(B, n_p). B >= n_p: every layer gets n_p; n_p = 0: zeros.
// Pure function, thread safe.
#ifndef MASKKV_CORE_POLICY_PYRAMID_H_
#define MASKKV_CORE_POLICY_PYRAMID_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

namespace maskkv::policy {

// layers 1 to 2^20, budget B >= 1, prompt_tokens n_p in [0, 2^31 - 1].
// Returns: (layers) pairs per head. Errors: INVALID_ARGUMENT naming argument, found and expected.
absl::StatusOr<std::vector<std::int64_t>> PyramidLayerBudgets(std::int64_t layers,
                                                              std::int64_t budget,
                                                              std::int64_t prompt_tokens);

}  // namespace maskkv::policy

#endif  // MASKKV_CORE_POLICY_PYRAMID_H_
