// SPDX-License-Identifier: Apache-2.0
//
// Which prompt positions a head keeps: equation (16) of MaskKV (arXiv 2510.09309), the k positions
// of highest score with ties to the lower position, and how much of the score they hold. The
// checked face of kernels/select. Pure functions, thread safe.
#ifndef MASKKV_CORE_POLICY_SELECTION_H_
#define MASKKV_CORE_POLICY_SELECTION_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

namespace maskkv::policy {

// prompt_scores  (n_p) f32, finite and >= 0.
// k              0 to n_p.
// Returns: (k) positions in [0, n_p), strictly ascending. The set for k is a subset of that for
// k + 1.
// Errors: INVALID_ARGUMENT naming the argument or the position.
absl::StatusOr<std::vector<std::int32_t>> SelectKept(std::span<const float> prompt_scores,
                                                     std::int64_t k);

// The score of the kept positions, summed in f64 in the order of `kept`.
// REQUIRES: every position is in [0, prompt_scores.size()).
double KeptMass(std::span<const float> prompt_scores, std::span<const std::int32_t> kept);

}  // namespace maskkv::policy

#endif  // MASKKV_CORE_POLICY_SELECTION_H_
