// SPDX-License-Identifier: Apache-2.0
//
// From one layer's mask-query scores to the rows that each KV head keeps, for every selection of an
// eviction plan. Pure; the method itself is core/policy.
#ifndef MASKKV_CORE_ENGINE_KEEP_H_
#define MASKKV_CORE_ENGINE_KEEP_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "core/engine/eviction_plan.h"

namespace maskkv::engine {

// Per KV head.
struct KeptLayer {
  std::vector<std::vector<std::int32_t>> rows;  // kept prompt rows, ascending
  std::vector<double> preference;               // equation 14
  std::vector<double> kept_mass;                // score of the kept rows
  std::vector<double> prompt_mass;              // score of all prompt rows
};

// scores: (kv_heads, keys) mask-query scores over all keys, the first prompt_tokens of them prompt
// rows. layer_budget: the layer's pairs a head (kMaskKv without coverage). The random selection is
// a function of (plan.random_seed, layer, head).
// Errors: DATA_LOSS if a score is NaN; INVALID_ARGUMENT from the policy.
absl::StatusOr<KeptLayer> KeepPairs(const EvictionPlan& plan, std::int64_t layer,
                                    std::int64_t layer_budget, std::int64_t kv_heads,
                                    std::span<const float> scores, std::int64_t prompt_tokens);

}  // namespace maskkv::engine

#endif  // MASKKV_CORE_ENGINE_KEEP_H_
