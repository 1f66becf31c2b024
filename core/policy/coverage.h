// SPDX-License-Identifier: Apache-2.0
//
// A layer cut by what it keeps instead of by a count: the fewest prompt pairs, over all heads of
// the layer, whose mask-query score reaches a share of the prompt's. Pairs of all heads are pooled,
// so heads that read the prompt broadly keep more; no preference and no base rate is needed.
//
//   order    all pairs (h, j) of the prompt by score I_hj: descending, ties to the lower head, then
//            to the lower position
//   kept     the first pair of each head, then pairs in that order, one at a time, until
//              Sum kept I >= (coverage * Sum all I)     or     max_budget * N_h pairs are kept
//
// Sums are ExactSum (rounded once), the product is one IEEE double operation. A greedy choice is
// the fewest pairs that a set with a pair a head can do with. Pure function, thread safe.
#ifndef MASKKV_CORE_POLICY_COVERAGE_H_
#define MASKKV_CORE_POLICY_COVERAGE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

namespace maskkv::policy {

// scores         (heads, keys) f32, contiguous, finite and >= 0; of each row the first
//                prompt_tokens are looked at.
// keys           >= 1; scores.size() is a positive multiple of it, the multiple being heads.
// prompt_tokens  n_p, 0 to keys.
// coverage       (0, 1]. 1 keeps all that is needed for the whole rounded sum: pairs of score zero
//                are not.
// max_budget     >= 1: most pairs a head, on average over the layer's heads; 0: no bound.
// Returns: kept positions of each head, strictly ascending; at least one a head if n_p >= 1, one
// each if all scores are zero. The set for a coverage is a subset of that for a larger one, and
// likewise for max_budget.
// Errors: INVALID_ARGUMENT naming the argument, or the head and position of a score.
absl::StatusOr<std::vector<std::vector<std::int32_t>>> SelectByCoverage(
    std::span<const float> scores, std::int64_t keys, std::int64_t prompt_tokens, double coverage,
    std::int64_t max_budget);

}  // namespace maskkv::policy

#endif  // MASKKV_CORE_POLICY_COVERAGE_H_
