// SPDX-License-Identifier: Apache-2.0
//
// Eviction policies by name (docs/policies.md): whose attention scores the pairs, how the budget is
// split over layers, how a layer's share is split over heads. A value; the functions are pure and
// thread safe.
#ifndef MASKKV_CORE_POLICY_NAMED_POLICY_H_
#define MASKKV_CORE_POLICY_NAMED_POLICY_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace maskkv::policy {

enum class Voters : std::uint8_t {
  kMasks,        // all response rows
  kMasksFront,   // the first quarter of them
  kMasksSecond,  // the next
  kMasksThird,   // the next
  kMasksBack,    // the last quarter
  kPrompt,       // all prompt rows
  kAll,          // all rows
  kWindow,       // the last prompt rows (window.h)
  kRecent,       // nobody: sinks and the most recent positions (recent.h)
  kRandom,       // nobody: random positions
  kFull,         // nobody: every pair
};

enum class LayerRule : std::uint8_t {
  kOffline,  // layer budgets from a measured profile: one layer's full K and V alive at a time
  kOnline,   // layer budgets from this prompt's own importance: all layers' K and V alive at once
  kUniform,  // every layer gets the budget
  kWeights,  // layer budgets from a controller's weights, which have no name here
  kPyramid,  // pyramid.h
  kSqueeze,  // squeeze.h, from a measured profile
  kPool,     // no layer budgets: one pool of all layers' and heads' pairs (pair_pool.h)
};

enum class HeadRule : std::uint8_t {
  kPreference,  // head_budget.h
  kUniform,     // the layer's pairs a head for each
  kAdaKv,       // adakv.h
  kPool,        // adakv.h, SelectPooled; under LayerRule::kPool of all layers
};

struct PolicyParts {
  Voters voters = Voters::kMasks;
  LayerRule layers = LayerRule::kOffline;
  HeadRule heads = HeadRule::kPreference;

  bool operator==(const PolicyParts&) const = default;
};

// The names of the table of docs/policies.md, in its order.
std::vector<std::string> PolicyNames();

// Whether the parts can be asked for together: nobody's votes split no heads, and a pool over all
// layers is one over heads, of voters that force no positions.
// Errors: INVALID_ARGUMENT naming the part, found and expected.
absl::Status CheckParts(const PolicyParts& parts);

// A name of the table, or VOTERS/LAYERS/HEADS. What `full` does not use comes back as uniform.
// Errors: INVALID_ARGUMENT: unknown name or part, with all that are known; of CheckParts.
absl::StatusOr<PolicyParts> ParsePolicy(std::string_view name);

// The name of the table if the parts have one, else VOTERS/LAYERS/HEADS; kWeights is written
// "weights". Distinct parts have distinct names.
std::string PolicyName(const PolicyParts& parts);

// The name of the table, or kCustomPolicy: few enough for a label of a metric.
inline constexpr std::string_view kCustomPolicy = "custom";
std::string PolicyLabel(const PolicyParts& parts);

// Whether the rule reads a measured importance profile.
inline bool NeedsImportance(LayerRule rule) {
  return rule == LayerRule::kOffline || rule == LayerRule::kSqueeze;
}

// Whether the rule gives every layer a base (beta) first.
inline bool UsesBeta(LayerRule rule) {
  return rule == LayerRule::kOffline || rule == LayerRule::kOnline || rule == LayerRule::kWeights;
}

}  // namespace maskkv::policy

#endif  // MASKKV_CORE_POLICY_NAMED_POLICY_H_
