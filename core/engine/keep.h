// SPDX-License-Identifier: Apache-2.0
//
// From one layer's scores to the rows that each KV head keeps, for every policy of an eviction
// plan. Pure; the methods themselves are core/policy.
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
  std::vector<double> preference;               // equation 14, of the voters
  std::vector<double> kept_mass;                // mask-query score of the kept rows
  std::vector<double> prompt_mass;              // mask-query score of all prompt rows
};

// Each (kv_heads, keys), over all keys, the prompt's first. Where nobody votes, masks do: for what
// is reported.
struct LayerScores {
  std::span<const float> voting;  // of the plan's voters
  std::span<const float> masks;   // of all response rows that vote: kept pairs are measured by them
};

// DATA_LOSS (NOT_FINITE) if a score is NaN.
absl::Status CheckLayerScores(std::int64_t layer, const LayerScores& scores);

// The prompt is the first prompt_tokens keys. layer_budget: the layer's pairs a head (not read for
// a coverage or the full selection). Random rows are a function of (plan.random_seed, layer, head).
// REQUIRES: a valid plan that does not stage pairs (pool_stage.h).
// Errors: of CheckLayerScores; INVALID_ARGUMENT from the policy.
absl::StatusOr<KeptLayer> KeepPairs(const EvictionPlan& plan, std::int64_t layer,
                                    std::int64_t layer_budget, std::int64_t kv_heads,
                                    const LayerScores& scores, std::int64_t prompt_tokens);

}  // namespace maskkv::engine

#endif  // MASKKV_CORE_ENGINE_KEEP_H_
