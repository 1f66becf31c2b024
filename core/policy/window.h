// SPDX-License-Identifier: Apache-2.0
//
// The observation window of SnapKV (arXiv 2404.14469): the prompt's last positions vote and are
// kept in every head. Pure functions, thread safe.
#ifndef MASKKV_CORE_POLICY_WINDOW_H_
#define MASKKV_CORE_POLICY_WINDOW_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

namespace maskkv::policy {

// w = min(max(1, min(32, floor(B / 2))), n_p): how many positions vote.
// REQUIRES: budget >= 1, prompt_tokens >= 0.
std::int64_t WindowSize(std::int64_t budget, std::int64_t prompt_tokens);

// prompt_scores  (n_p) f32, finite and >= 0.
// k              0 to n_p.
// window         w: 0 to n_p.
// Returns: (k) positions, strictly ascending: the last min(w, k), and of the others the k - w of
// highest score, ties to the lower position. w = 0: SelectKept.
// Errors: INVALID_ARGUMENT naming the argument or the position.
absl::StatusOr<std::vector<std::int32_t>> SelectWithWindow(std::span<const float> prompt_scores,
                                                           std::int64_t k, std::int64_t window);

}  // namespace maskkv::policy

#endif  // MASKKV_CORE_POLICY_WINDOW_H_
