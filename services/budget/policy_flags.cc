// SPDX-License-Identifier: Apache-2.0
#include "services/budget/policy_flags.h"

#include <CLI/CLI.hpp>
#include <algorithm>

#include "absl/strings/str_format.h"
#include "core/base/error.h"
#include "core/base/status_macros.h"
#include "core/budget/quality_curve.h"

namespace maskkv::budget_service {
namespace {

// Whose shares of layers and heads a plan gives (docs/policies.md).
constexpr std::string_view kPlannedPolicy = "maskkv";

}  // namespace

void PolicyFlags::Declare(CLI::App& app) {
  const CLI::Range pairs(std::int64_t{1}, budget::kMaxBudget), share(0.0, 1.0);
  CLI::Option* const budget =
      app.add_option("--budget", policy_.budget, "B at rest: mean pairs kept a head a layer")
          ->check(pairs)
          ->capture_default_str();
  CLI::Option* const coverage =
      app.add_option("--coverage", policy_.coverage,
                     "instead of B: share of the score mass to keep, of at most --max-budget pairs")
          ->check(CLI::Range(1e-6, 1.0))
          ->excludes(budget);
  app.add_option("--quality", quality_,
                 "curve of maskkv calibrate --quality: B at rest is the budget that it names")
      ->type_name("FILE")
      ->excludes(budget)
      ->excludes(coverage);
  app.add_option("--min-budget", min_budget_, "the loop never goes below; default 16")
      ->check(pairs);
  app.add_option("--max-budget", max_budget_, "the loop never goes beyond; default 512")
      ->check(pairs);
  app.add_option("--alpha", policy_.alpha, "base rate of heads")
      ->check(share)
      ->capture_default_str();
  app.add_option("--beta", policy_.beta, "base rate of layers")
      ->check(share)
      ->capture_default_str();
  app.add_option("--adapt-budget", policy_.adapt_budget,
                 "true or false: memory, queues and kept mass move B within the limits")
      ->capture_default_str();
  app.add_option("--adapt-shares", policy_.adapt_shares,
                 "true or false: what prefills report moves layer weights and head rates")
      ->capture_default_str();
  app.add_option("--target-mass", policy_.target_mass,
                 "kept share of the score mass that the loop tries to hold")
      ->check(share)
      ->capture_default_str();
}

absl::StatusOr<std::int64_t> PolicyFlags::NamedBudget(std::string_view model_fingerprint) const {
  MASKKV_ASSIGN_OR_RETURN(const budget::QualityCurve curve, budget::LoadQualityCurve(quality_));
  if (curve.policy != kPlannedPolicy) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: field policy: expected %s, which the controller plans for, found %s",
                        quality_, kPlannedPolicy, curve.policy));
  }
  if (!model_fingerprint.empty() && curve.model_fingerprint != model_fingerprint) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "MODEL_MISMATCH",
                     absl::StrFormat("%s: field model_fingerprint: expected the planned model's %s, "
                                     "found %s: run maskkv calibrate --quality",
                                     quality_, model_fingerprint, curve.model_fingerprint));
  }
  const std::optional<std::int64_t> named = curve.NamedBudget();
  if (!named) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "%s: field budget: expected a budget, found null: none that was measured leaves %g of "
        "predictions unchanged",
        quality_, curve.agreement));
  }
  return *named;
}

absl::StatusOr<budget::Policy> PolicyFlags::policy(std::string_view model_fingerprint) const {
  budget::Policy policy = policy_;
  if (!quality_.empty()) {
    MASKKV_ASSIGN_OR_RETURN(policy.budget, NamedBudget(model_fingerprint));
  }
  policy.max_budget = max_budget_.value_or(std::max(policy.max_budget, policy.budget));
  policy.min_budget =
      min_budget_.value_or(std::min({policy.min_budget, policy.budget, policy.max_budget}));
  if (policy.coverage > 0) policy.budget = policy.max_budget;
  MASKKV_RETURN_IF_ERROR(budget::Validate(policy));
  return policy;
}

}  // namespace maskkv::budget_service
