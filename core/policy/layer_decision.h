// SPDX-License-Identifier: Apache-2.0
//
// One layer's eviction, from its voters' scores alone: preferences (14), head budgets by a head
// rule, kept positions (16); or, for a coverage target, the positions alone (coverage.h). With
// budgets known beforehand (a profile, weights) a layer is evicted as soon as it has run, so only
// one layer's full keys and values ever exist. Pure functions, thread safe.
#ifndef MASKKV_CORE_POLICY_LAYER_DECISION_H_
#define MASKKV_CORE_POLICY_LAYER_DECISION_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "core/policy/named_policy.h"

namespace maskkv::policy {

// Every vector has one element a KV head.
struct LayerDecision {
  std::vector<std::vector<std::int32_t>> kept;  // prompt positions, strictly ascending
  std::vector<double> preference;               // P_h
  std::vector<double> kept_mass;                // score of the kept positions
  std::vector<double> prompt_mass;              // score of all prompt positions
};

// How a layer's pairs go to its heads.
struct HeadSplit {
  HeadRule rule = HeadRule::kPreference;
  // kPreference: (kv_heads) base rates, each in [0, 1]; or one value, alpha, for all.
  std::span<const double> rates;
  std::int64_t window = 0;  // w, 0 to n_p: the last positions, which every head keeps (window.h)
};

// scores         (kv_heads, keys) f32, contiguous: kernels/attention/mask_scores.h. The first
//                prompt_tokens keys of each row are the prompt's, the others the masks'.
// keys           >= 1; scores.size() is a positive multiple of it, the multiple being kv_heads.
// prompt_tokens  0 to keys.
// layer_budget   k_l of AllocateLayerBudgets: 1 to prompt_tokens; 0 if that is 0.
// Returns: kept positions, kv_heads * layer_budget in all; none for an empty prompt.
// Errors: INVALID_ARGUMENT naming the argument, or the head and position of a score.
absl::StatusOr<LayerDecision> DecideLayer(std::span<const float> scores, std::int64_t keys,
                                          std::int64_t prompt_tokens, std::int64_t layer_budget,
                                          const HeadSplit& split);
inline absl::StatusOr<LayerDecision> DecideLayer(std::span<const float> scores, std::int64_t keys,
                                                 std::int64_t prompt_tokens,
                                                 std::int64_t layer_budget, double alpha) {
  return DecideLayer(scores, keys, prompt_tokens, layer_budget, HeadSplit{.rates = {&alpha, 1}});
}

// The same by coverage: arguments and errors of SelectByCoverage (coverage.h), scores over all
// keys.
absl::StatusOr<LayerDecision> DecideLayerByCoverage(std::span<const float> scores,
                                                    std::int64_t keys, std::int64_t prompt_tokens,
                                                    double coverage, std::int64_t max_budget);

}  // namespace maskkv::policy

#endif  // MASKKV_CORE_POLICY_LAYER_DECISION_H_
