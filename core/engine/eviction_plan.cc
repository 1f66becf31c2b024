// SPDX-License-Identifier: Apache-2.0
#include "core/engine/eviction_plan.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "core/policy/arguments.h"
#include "core/policy/layer_weights.h"

namespace maskkv::engine {
namespace {

constexpr std::int64_t kLargest = std::numeric_limits<std::int64_t>::max();

absl::Status CheckCount(const char* name, std::size_t found, std::int64_t expected,
                        const char* unit) {
  if (static_cast<std::int64_t>(found) == expected) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("%s: expected %d %s, found %d", name, expected, unit, found));
}

absl::Status CheckCoverage(const EvictionPlan& plan) {
  if (!(plan.coverage > 0 && plan.coverage <= 1)) {  // NaN as well
    return absl::InvalidArgumentError(absl::StrFormat(
        "coverage: expected 0 or a number over 0 and at most 1, found %g", plan.coverage));
  }
  if (plan.voters != Voters::kMasks) {
    return absl::InvalidArgumentError("voters: expected masks with a coverage, found others");
  }
  return policy::CheckInteger("max_budget", plan.max_budget, 0, kLargest);
}

absl::Status CheckHeadRates(const EvictionPlan& plan, std::int64_t layers, std::int64_t kv_heads) {
  if (plan.head_rates.empty()) return policy::CheckRate("alpha", plan.alpha);
  MASKKV_RETURN_IF_ERROR(
      CheckCount("head_rates", plan.head_rates.size(), layers * kv_heads, "heads of all layers"));
  for (std::size_t i = 0; i < plan.head_rates.size(); ++i) {
    MASKKV_RETURN_IF_ERROR(
        policy::CheckRate(absl::StrFormat("head_rates: head %d", i), plan.head_rates[i]));
  }
  return absl::OkStatus();
}

absl::Status CheckLayerRule(const EvictionPlan& plan, std::int64_t layers) {
  switch (plan.layer_rule) {
    case LayerRule::kOffline:
    case LayerRule::kSqueeze:
      return CheckCount("importance", plan.importance.size(), layers, "layers from a profile");
    case LayerRule::kWeights:
      MASKKV_RETURN_IF_ERROR(
          CheckCount("layer_weights", plan.layer_weights.size(), layers, "layers"));
      return policy::CheckLayerWeights(plan.layer_weights);
    case LayerRule::kOnline:
    case LayerRule::kUniform:
    case LayerRule::kPyramid:
    case LayerRule::kPool:
      return absl::OkStatus();
  }
  return absl::InvalidArgumentError("layer_rule: expected one of the seven rules, found another");
}

}  // namespace

std::int64_t EvictionPlan::MaxPairsAHead(std::int64_t prompt_tokens) const {
  if (selection == Selection::kFull) return prompt_tokens;
  if (selection == Selection::kMaskKv && coverage > 0) {
    return max_budget == 0 ? prompt_tokens : std::min(max_budget, prompt_tokens);
  }
  return std::min(budget, prompt_tokens);
}

bool EvictionPlan::HoldsAllLayers() const {
  return selection == Selection::kMaskKv && coverage == 0 && layer_rule == LayerRule::kOnline;
}

bool EvictionPlan::StagesPairs() const {
  return selection == Selection::kMaskKv && coverage == 0 && layer_rule == LayerRule::kPool;
}

policy::PolicyParts EvictionPlan::Parts() const {
  switch (selection) {
    case Selection::kFull:
      return {Voters::kFull, LayerRule::kUniform, HeadRule::kUniform};
    case Selection::kRandom:
      return {Voters::kRandom, LayerRule::kUniform, HeadRule::kUniform};
    case Selection::kMaskKv:
      break;
  }
  return {voters, layer_rule, head_rule};
}

void EvictionPlan::Follow(const policy::PolicyParts& parts) {
  const bool random = parts.voters == Voters::kRandom && parts.layers == LayerRule::kUniform;
  selection = parts.voters == Voters::kFull ? Selection::kFull
              : random                      ? Selection::kRandom
                                            : Selection::kMaskKv;
  layer_rule = parts.layers;
  // A selection that reads no rules keeps their defaults, so that equal outcomes are equal plans.
  voters = selection == Selection::kMaskKv ? parts.voters : Voters::kMasks;
  head_rule = selection == Selection::kMaskKv ? parts.heads : HeadRule::kPreference;
}

absl::Status Validate(const EvictionPlan& plan, std::int64_t layers, std::int64_t kv_heads) {
  if (plan.selection == Selection::kFull) return absl::OkStatus();
  if (plan.selection == Selection::kMaskKv && plan.coverage != 0) return CheckCoverage(plan);
  MASKKV_RETURN_IF_ERROR(policy::CheckInteger("budget", plan.budget, 1, kLargest));
  if (plan.selection == Selection::kRandom) return absl::OkStatus();
  if (plan.voters == Voters::kFull) {
    return absl::InvalidArgumentError("voters: expected some, found full: that is a selection");
  }
  MASKKV_RETURN_IF_ERROR(policy::CheckParts(plan.Parts()));
  if (plan.head_rule == HeadRule::kPreference) {
    MASKKV_RETURN_IF_ERROR(CheckHeadRates(plan, layers, kv_heads));
  }
  MASKKV_RETURN_IF_ERROR(policy::CheckRate("beta", plan.beta));
  return CheckLayerRule(plan, layers);
}

}  // namespace maskkv::engine
