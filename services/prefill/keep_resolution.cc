// SPDX-License-Identifier: Apache-2.0
#include "services/prefill/keep_resolution.h"

#include <string>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/error.h"
#include "core/base/status_macros.h"
#include "maskkv/v1/common.pb.h"
#include "services/common/dtype_proto.h"

namespace maskkv::prefill {
namespace {

// What the policy's own messages begin with: the field is named once.
constexpr std::string_view kPolicyPrefix = "policy: ";

absl::Status BadKeep(std::string_view field, const std::string& problem) {
  return MakeError(absl::StatusCode::kInvalidArgument, "BAD_KEEP",
                   absl::StrFormat("keep: %s: %s", field, problem),
                   {{"field", std::string(field)}});
}

absl::Status CheckBudget(std::string_view field, std::int64_t value, std::int64_t least) {
  if (value >= least && value <= budget::kMaxBudget) return absl::OkStatus();
  return BadKeep(field, absl::StrFormat("expected an integer from %d to %d, found %d", least,
                                        budget::kMaxBudget, value));
}

absl::Status CheckRate(std::string_view field, double value) {
  if (value >= 0 && value <= 1) return absl::OkStatus();  // false for NaN
  return BadKeep(field, absl::StrFormat("expected a number from 0 to 1, found %g", value));
}

absl::Status CheckFields(const v1::KeepPolicy& keep) {
  if (!v1::Selection_IsValid(keep.selection())) {
    return BadKeep("selection",
                   absl::StrFormat("expected a known value, found %d", int{keep.selection()}));
  }
  if (!v1::LayerRule_IsValid(keep.layer_rule())) {
    return BadKeep("layer_rule",
                   absl::StrFormat("expected a known value, found %d", int{keep.layer_rule()}));
  }
  if (!v1::KvDtype_IsValid(keep.kv_dtype())) {
    return BadKeep("kv_dtype",
                   absl::StrFormat("expected a known value, found %d", int{keep.kv_dtype()}));
  }
  if (keep.has_budget()) MASKKV_RETURN_IF_ERROR(CheckBudget("budget", keep.budget(), 1));
  if (keep.has_coverage() && !(keep.coverage() > 0 && keep.coverage() <= 1)) {
    return BadKeep("coverage", absl::StrFormat("expected a number over 0 and at most 1, found %g",
                                               keep.coverage()));
  }
  MASKKV_RETURN_IF_ERROR(CheckBudget("max_budget", keep.max_budget(), 0));
  if (keep.has_alpha()) MASKKV_RETURN_IF_ERROR(CheckRate("alpha", keep.alpha()));
  if (keep.has_beta()) MASKKV_RETURN_IF_ERROR(CheckRate("beta", keep.beta()));
  return absl::OkStatus();
}

void ResolveAmount(const v1::KeepPolicy& keep, const budget::Plan* plan, ResolvedKeep& resolved) {
  engine::EvictionPlan& out = resolved.plan;
  if (keep.has_budget()) {
    out.budget = keep.budget();
  } else if (keep.has_coverage()) {
    out.coverage = keep.coverage();
    out.max_budget = keep.max_budget();
  } else if (plan != nullptr) {
    resolved.plan_amount = true;
    if (plan->coverage > 0) {
      out.coverage = plan->coverage;
      out.max_budget = keep.max_budget() > 0 ? keep.max_budget() : plan->max_budget;
    } else {
      out.budget = plan->budget;
    }
  }
}

void ResolveRates(const v1::KeepPolicy& keep, const budget::Plan* plan, engine::EvictionPlan& out) {
  if (plan != nullptr) {
    out.alpha = plan->alpha;
    out.beta = plan->beta;
    if (!keep.has_alpha()) out.head_rates = plan->head_rates;
  }
  if (keep.has_alpha()) out.alpha = keep.alpha();
  if (keep.has_beta()) out.beta = keep.beta();
}

// The measured importance: the profile's, else the plan's.
absl::Status ResolveImportance(std::string_view field, const KeepSources& sources,
                               const budget::Plan* plan, engine::EvictionPlan& out) {
  if (sources.profile != nullptr) {
    out.importance = sources.profile->importance;
  } else if (plan != nullptr && !plan->importance.empty()) {
    out.importance = plan->importance;
  } else {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, "NO_PROFILE",
        absl::StrFormat("keep: %s: expected the model's importance profile, found none: run maskkv "
                        "calibrate, or ask for another %s",
                        field, field == "policy" ? "policy" : "rule"));
  }
  return absl::OkStatus();
}

absl::Status ResolveLayers(v1::LayerRule rule, const KeepSources& sources, const budget::Plan* plan,
                           engine::EvictionPlan& out) {
  out.layer_rule = engine::LayerRule::kUniform;
  const auto by_importance = [&](const std::vector<double>& importance) {
    out.layer_rule = engine::LayerRule::kOffline;
    out.importance = importance;
  };
  switch (rule) {
    case v1::LAYER_RULE_ONLINE:
      out.layer_rule = engine::LayerRule::kOnline;
      break;
    case v1::LAYER_RULE_OFFLINE:
      out.layer_rule = engine::LayerRule::kOffline;
      return ResolveImportance("layer_rule", sources, plan, out);
    case v1::LAYER_RULE_UNIFORM:
      break;
    default:  // the plan's
      if (plan != nullptr && !plan->layer_weights.empty()) {
        out.layer_rule = engine::LayerRule::kWeights;
        out.layer_weights = plan->layer_weights;
      } else if (plan != nullptr) {
        if (!plan->importance.empty()) by_importance(plan->importance);
      } else if (sources.profile != nullptr) {
        by_importance(sources.profile->importance);
      }
  }
  return absl::OkStatus();
}

// A coverage decides each layer by itself: the rest is not used.
void KeepCoverageAlone(engine::EvictionPlan& plan) {
  engine::EvictionPlan only;
  only.layer_rule = engine::LayerRule::kUniform;
  only.coverage = plan.coverage;
  only.max_budget = plan.max_budget;
  plan = std::move(only);
}

absl::Status ResolveMaskKv(const v1::KeepPolicy& keep, const KeepSources& sources,
                           const budget::Plan* plan, ResolvedKeep& resolved) {
  ResolveAmount(keep, plan, resolved);
  ResolveRates(keep, plan, resolved.plan);
  MASKKV_RETURN_IF_ERROR(ResolveLayers(keep.layer_rule(), sources, plan, resolved.plan));
  const engine::EvictionPlan unused;
  if (resolved.plan.layer_rule == engine::LayerRule::kUniform) resolved.plan.beta = unused.beta;
  if (!resolved.plan.head_rates.empty()) resolved.plan.alpha = unused.alpha;
  if (resolved.plan.coverage > 0) KeepCoverageAlone(resolved.plan);
  return absl::OkStatus();
}

// A policy by name: exactly what docs/policies.md says, so head rates and weights that a controller
// learned stay out; the amount and the base rates may be the plan's.
absl::Status ResolveNamed(const v1::KeepPolicy& keep, const KeepSources& sources,
                          const budget::Plan* plan, ResolvedKeep& resolved) {
  if (keep.selection() != v1::SELECTION_UNSPECIFIED ||
      keep.layer_rule() != v1::LAYER_RULE_UNSPECIFIED) {
    return BadKeep("policy", "expected no selection and no layer_rule beside a policy, found one");
  }
  const absl::StatusOr<policy::PolicyParts> parts = policy::ParsePolicy(keep.policy());
  if (!parts.ok()) {
    return BadKeep("policy", std::string(parts.status().message().substr(kPolicyPrefix.size())));
  }
  engine::EvictionPlan& out = resolved.plan;
  const std::string name = policy::PolicyName(*parts);
  const bool maskkv = *parts == policy::PolicyParts{};
  if (keep.has_coverage() && !maskkv) {
    return BadKeep(
        "coverage",
        absl::StrFormat("expected a budget with policy %s, found a coverage target", name));
  }
  out.Follow(*parts);
  if (parts->voters == policy::Voters::kFull) return absl::OkStatus();
  if (maskkv || keep.has_budget()) {
    ResolveAmount(keep, plan, resolved);
  } else if (plan != nullptr && plan->coverage == 0) {
    out.budget = plan->budget;
  }
  if (out.coverage > 0) {
    KeepCoverageAlone(out);
    return absl::OkStatus();
  }
  if (parts->voters == policy::Voters::kRandom) out.random_seed = keep.random_seed();
  if (parts->heads == policy::HeadRule::kPreference) {
    if (plan != nullptr) out.alpha = plan->alpha;
    if (keep.has_alpha()) out.alpha = keep.alpha();
  }
  if (policy::UsesBeta(parts->layers)) {
    if (plan != nullptr) out.beta = plan->beta;
    if (keep.has_beta()) out.beta = keep.beta();
  }
  if (!policy::NeedsImportance(parts->layers)) return absl::OkStatus();
  return ResolveImportance("policy", sources, plan, out);
}

absl::Status ResolveSelection(const v1::KeepPolicy& asked, const KeepSources& sources,
                              const budget::Plan* plan, ResolvedKeep& resolved) {
  engine::EvictionPlan& out = resolved.plan;
  switch (asked.selection()) {
    case v1::SELECTION_FULL:
      out.selection = engine::Selection::kFull;
      out.layer_rule = engine::LayerRule::kUniform;
      break;
    case v1::SELECTION_RANDOM:
      if (asked.has_coverage()) {
        return BadKeep("coverage", "expected a budget for random pairs, found a coverage target");
      }
      out.selection = engine::Selection::kRandom;
      out.layer_rule = engine::LayerRule::kUniform;
      out.random_seed = asked.random_seed();
      if (asked.has_budget()) {
        out.budget = asked.budget();
      } else if (plan != nullptr && plan->coverage == 0) {
        out.budget = plan->budget;
      }
      break;
    default:
      return ResolveMaskKv(asked, sources, plan, resolved);
  }
  return absl::OkStatus();
}

}  // namespace

std::int64_t ResolvedKeep::budget() const {
  return plan.selection == engine::Selection::kFull || plan.coverage > 0 ? 0 : plan.budget;
}

bool FitsModel(const budget::Plan& plan, const KeepSources& sources) {
  const auto fits = [](const std::vector<double>& values, std::int64_t size) {
    return values.empty() || static_cast<std::int64_t>(values.size()) == size;
  };
  return (plan.model_fingerprint.empty() || plan.model_fingerprint == sources.model_fingerprint) &&
         fits(plan.layer_weights, sources.layers) && fits(plan.importance, sources.layers) &&
         fits(plan.head_rates, sources.layers * sources.kv_heads) && budget::Validate(plan).ok();
}

absl::StatusOr<ResolvedKeep> ResolveKeep(const v1::KeepPolicy* keep, const KeepSources& sources) {
  const v1::KeepPolicy& asked = keep != nullptr ? *keep : v1::KeepPolicy::default_instance();
  MASKKV_RETURN_IF_ERROR(CheckFields(asked));
  const budget::Plan* plan = sources.plan;
  if (plan != nullptr && !FitsModel(*plan, sources)) plan = nullptr;
  ResolvedKeep resolved;
  if (plan != nullptr) resolved.plan_generation = plan->generation;
  MASKKV_RETURN_IF_ERROR(asked.policy().empty() ? ResolveSelection(asked, sources, plan, resolved)
                                                : ResolveNamed(asked, sources, plan, resolved));
  resolved.kv_dtype = services::FromProto(asked.kv_dtype(), sources.kv_dtype);
  const engine::EvictionPlan& out = resolved.plan;
  if (absl::Status status = engine::Validate(out, sources.layers, sources.kv_heads); !status.ok()) {
    return BadKeep("plan", std::string(status.message()));
  }
  return resolved;
}

}  // namespace maskkv::prefill
