// SPDX-License-Identifier: Apache-2.0
//
// Which pairs of a prompt a prefill keeps: the plan is an argument of the engine, whoever made it
// (command line, budget controller). A value.
#ifndef MASKKV_CORE_ENGINE_EVICTION_PLAN_H_
#define MASKKV_CORE_ENGINE_EVICTION_PLAN_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "core/policy/named_policy.h"

namespace maskkv::engine {

enum class Selection : std::uint8_t {
  kFull,    // every pair
  kMaskKv,  // by voters, layer rule and head rule; the defaults are MaskKV's (docs/policies.md)
  kRandom,  // `budget` random pairs of every head: the floor that a policy must beat
};

using policy::HeadRule;
using policy::LayerRule;
using policy::Voters;

struct EvictionPlan {
  Selection selection = Selection::kMaskKv;
  std::uint64_t random_seed = 0;  // kRandom and Voters::kRandom
  std::int64_t budget = 64;       // B: mean pairs kept a head a layer, >= 1

  // The rest is read under kMaskKv alone.
  Voters voters = Voters::kMasks;  // not kFull, which is a selection
  LayerRule layer_rule = LayerRule::kOffline;
  HeadRule head_rule = HeadRule::kPreference;
  double alpha = 0.1;                 // kPreference: base rate of heads, 0..1
  double beta = 0.4;                  // base rate of layers, 0..1: kOffline, kOnline, kWeights
  std::vector<double> importance;     // kOffline, kSqueeze: one a layer (equation 8)
  std::vector<double> layer_weights;  // kWeights: one a layer, finite, >= 0, not all zero
  std::vector<double> head_rates;     // layers * kv_heads, each 0..1, in alpha's place; or empty

  // 0: off. Else in (0, 1]: every layer keeps the fewest pairs whose score mass is that share of
  // its prompt's, at most max_budget (0: no bound) pairs a head on average. Voters are all masks;
  // budget, layer and head rule, rates and weights are then not used, and a layer is cut as soon as
  // it has run.
  double coverage = 0;
  std::int64_t max_budget = 0;

  // Most pairs a head of any layer keeps on average of a prompt of so many tokens.
  std::int64_t MaxPairsAHead(std::int64_t prompt_tokens) const;

  // Whether layers can be cut only after all have run: their full K and V are alive until then.
  bool HoldsAllLayers() const;

  // Whether kept pairs wait beside the entry until the last layer has run: at most the entry's
  // bytes once more.
  bool StagesPairs() const;

  // Which policy it is, coverage aside. What the selection does not use is uniform.
  policy::PolicyParts Parts() const;

  // Makes it that policy: selection, voters, rules. The other fields stay.
  void Follow(const policy::PolicyParts& parts);
};

// Errors: INVALID_ARGUMENT naming the field, found, expected.
absl::Status Validate(const EvictionPlan& plan, std::int64_t layers, std::int64_t kv_heads);

}  // namespace maskkv::engine

#endif  // MASKKV_CORE_ENGINE_EVICTION_PLAN_H_
