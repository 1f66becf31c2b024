// SPDX-License-Identifier: Apache-2.0
#include "services/prefill/keep_resolution.h"

#include <string>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/error.h"
#include "core/base/status_macros.h"
#include "maskkv/v1/common.pb.h"

namespace maskkv::prefill {
namespace {

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
      if (sources.profile != nullptr) {
        by_importance(sources.profile->importance);
      } else if (plan != nullptr && !plan->importance.empty()) {
        by_importance(plan->importance);
      } else {
        return MakeError(absl::StatusCode::kFailedPrecondition, "NO_PROFILE",
                         "keep: layer_rule: expected the model's importance profile, found none: "
                         "run maskkv calibrate, or ask for another rule");
      }
      break;
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

absl::Status ResolveMaskKv(const v1::KeepPolicy& keep, const KeepSources& sources,
                           const budget::Plan* plan, ResolvedKeep& resolved) {
  ResolveAmount(keep, plan, resolved);
  ResolveRates(keep, plan, resolved.plan);
  MASKKV_RETURN_IF_ERROR(ResolveLayers(keep.layer_rule(), sources, plan, resolved.plan));
  const engine::EvictionPlan unused;
  if (resolved.plan.layer_rule == engine::LayerRule::kUniform) resolved.plan.beta = unused.beta;
  if (!resolved.plan.head_rates.empty()) resolved.plan.alpha = unused.alpha;
  if (resolved.plan.coverage > 0) {  // decides each layer by itself
    engine::EvictionPlan only;
    only.layer_rule = engine::LayerRule::kUniform;
    only.coverage = resolved.plan.coverage;
    only.max_budget = resolved.plan.max_budget;
    resolved.plan = std::move(only);
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
      MASKKV_RETURN_IF_ERROR(ResolveMaskKv(asked, sources, plan, resolved));
  }
  if (absl::Status status = engine::Validate(out, sources.layers, sources.kv_heads); !status.ok()) {
    return BadKeep("plan", std::string(status.message()));
  }
  return resolved;
}

}  // namespace maskkv::prefill
