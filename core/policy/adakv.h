// SPDX-License-Identifier: Apache-2.0
//
// Heads that share a layer's pairs by the scores of all heads pooled.
//
// `adakv` (Ada-KV, arXiv 2407.11550): how many of the layer's best pairs are a head's says how many
// it gets, with a part that every head has:
//
//   f    pairs forced into every head (window.h), 0 to k
//   n_h  of the N_h * (k - f) pairs of highest score among all heads' first n_p - f positions,
//   those
//        of head h (ties: lower head, then lower position)
//   x_h  (f + (0.2 * (k - f))) + (0.8 * n_h)
//
// (IEEE double operations, in the order of the brackets), made whole by NearestWithTotal (claims.h)
// in [max(1, f), n_p] with the sum N_h * k.
//
// `pool`: the pooled pairs themselves are kept, besides the forced ones; without those a head may
// keep none. Pure functions, thread safe.
#ifndef MASKKV_CORE_POLICY_ADAKV_H_
#define MASKKV_CORE_POLICY_ADAKV_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

namespace maskkv::policy {

// scores         (heads, keys) f32, finite and >= 0; of each row the first prompt_tokens are looked
//                at. scores.size() is a positive multiple of keys, at most 2^20 of it.
// layer_budget   k, pairs per head: 1 to n_p; 0 if n_p == 0.
// forced         f: 0 to k.
// Returns: (heads) pairs of each head, N_h * k in all.
// Errors: INVALID_ARGUMENT naming the argument, or head and position of a score.
absl::StatusOr<std::vector<std::int64_t>> AdaKvHeadBudgets(std::span<const float> scores,
                                                           std::int64_t keys,
                                                           std::int64_t prompt_tokens,
                                                           std::int64_t layer_budget,
                                                           std::int64_t forced);

// The same arguments and errors.
// Returns: kept positions of each head, strictly ascending, the last `forced` ones of every head
// among them; N_h * k in all.
absl::StatusOr<std::vector<std::vector<std::int32_t>>> SelectPooled(std::span<const float> scores,
                                                                    std::int64_t keys,
                                                                    std::int64_t prompt_tokens,
                                                                    std::int64_t layer_budget,
                                                                    std::int64_t forced);

}  // namespace maskkv::policy

#endif  // MASKKV_CORE_POLICY_ADAKV_H_
