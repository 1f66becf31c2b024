// SPDX-License-Identifier: Apache-2.0
//
// Which pairs of a prompt a prefill keeps: the plan is an argument of the engine, whoever made it
// (command line, budget controller). A value.
#ifndef MASKKV_CORE_ENGINE_EVICTION_PLAN_H_
#define MASKKV_CORE_ENGINE_EVICTION_PLAN_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"

namespace maskkv::engine {

enum class Selection : std::uint8_t {
  kFull,    // every pair
  kMaskKv,  // mask voting, layer and head budgets (docs/policy.md)
  kRandom,  // `budget` random pairs of every head: the floor that a policy must beat
};

enum class LayerRule : std::uint8_t {
  kOffline,  // layer budgets from a measured profile: one layer's full K and V alive at a time
  kOnline,   // layer budgets from this prompt's own importance: all layers' K and V alive at once
  kUniform,  // every layer gets the budget
  kWeights,  // layer budgets from the plan's weights; memory as offline
};

struct EvictionPlan {
  Selection selection = Selection::kMaskKv;
  std::uint64_t random_seed = 0;  // kRandom
  std::int64_t budget = 64;       // B: mean pairs kept a head a layer, >= 1

  // The rest is read under kMaskKv alone.
  LayerRule layer_rule = LayerRule::kOffline;
  double alpha = 0.1;                 // base rate of heads, 0..1
  double beta = 0.4;                  // base rate of layers, 0..1
  std::vector<double> importance;     // kOffline: one a layer (equation 8)
  std::vector<double> layer_weights;  // kWeights: one a layer, finite, >= 0, not all zero
  std::vector<double> head_rates;     // layers * kv_heads, each 0..1, in alpha's place; or empty

  // 0: off. Else in (0, 1]: every layer keeps the fewest pairs whose score mass is that share of
  // its prompt's, at most max_budget (0: no bound) pairs a head on average. Budget, layer rule,
  // rates and weights are then not used, and a layer is cut as soon as it has run.
  double coverage = 0;
  std::int64_t max_budget = 0;

  // Most pairs a head of any layer keeps on average of a prompt of so many tokens.
  std::int64_t MaxPairsAHead(std::int64_t prompt_tokens) const;
};

// Errors: INVALID_ARGUMENT naming the field, found, expected.
absl::Status Validate(const EvictionPlan& plan, std::int64_t layers, std::int64_t kv_heads);

}  // namespace maskkv::engine

#endif  // MASKKV_CORE_ENGINE_EVICTION_PLAN_H_
