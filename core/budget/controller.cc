// SPDX-License-Identifier: Apache-2.0
#include "core/budget/controller.h"

#include <algorithm>
#include <variant>

#include "absl/strings/str_format.h"
#include "core/base/check.h"
#include "core/base/error.h"
#include "core/base/status_macros.h"
#include "core/policy/profile.h"

namespace maskkv::budget {
namespace {

// A coverage policy has no B: it reads as the most pairs, so that equal policies compare equal.
Policy Canonical(Policy policy) {
  if (policy.coverage > 0) policy.budget = policy.max_budget;
  return policy;
}

std::int64_t LayersOf(const PlannedModel& model) {
  return model.layers > 0 ? model.layers : static_cast<std::int64_t>(model.importance.size());
}

absl::Status Check(const PlannedModel& model) {
  const auto measured = static_cast<std::int64_t>(model.importance.size());
  if (measured != 0 && measured != LayersOf(model)) {
    return MakeError(
        absl::StatusCode::kInvalidArgument, "BAD_PLAN",
        absl::StrFormat("importance: expected %d layers, found %d", LayersOf(model), measured));
  }
  if (LayersOf(model) > policy::kMaxProfileLayers) {
    return MakeError(absl::StatusCode::kInvalidArgument, "BAD_PLAN",
                     absl::StrFormat("layers: expected at most %d, found %d",
                                     policy::kMaxProfileLayers, LayersOf(model)));
  }
  return absl::OkStatus();
}

}  // namespace

Controller::Controller(const PlannedModel& model, const Policy& policy, const Clock& clock,
                       const Tuning& tuning)
    : clock_(&clock),
      policy_(Canonical(policy)),
      signals_(tuning),
      loop_(tuning),
      shares_(model.importance, LayersOf(model), model.kv_heads, tuning) {
  plan_.generation = 1;
  plan_.model_fingerprint = model.fingerprint;
  plan_.importance = model.importance;
  plan_.coverage = policy_.coverage;
  plan_.alpha = policy_.alpha;
  plan_.beta = policy_.beta;
  plan_.cause = "start";
  SetAmount(AmountAtRest(policy_));
  signals_.MassOutdated(clock.Now());
}

absl::StatusOr<Controller> Controller::Create(const PlannedModel& model, const Policy& policy,
                                              const Clock& clock, const Tuning& tuning) {
  MASKKV_RETURN_IF_ERROR(Validate(policy));
  MASKKV_RETURN_IF_ERROR(Check(model));
  Controller controller(model, policy, clock, tuning);
  MASKKV_RETURN_IF_ERROR(Validate(controller.plan_));
  return controller;
}

absl::StatusOr<Controller> Controller::Restore(const PlannedModel& model, const Policy& policy,
                                               const Plan& last, const Clock& clock,
                                               const Tuning& tuning) {
  MASKKV_RETURN_IF_ERROR(Validate(last));
  MASKKV_ASSIGN_OR_RETURN(Controller controller, Create(model, policy, clock, tuning));
  Plan& plan = controller.plan_;
  const bool same_mode = (last.coverage > 0) == (plan.coverage > 0);
  if (policy.adapt_budget && same_mode) {
    controller.SetAmount(std::clamp(last.coverage > 0 ? last.max_budget : last.budget,
                                    policy.min_budget, policy.max_budget));
  }
  const bool same_model = last.model_fingerprint == model.fingerprint &&
                          last.importance == model.importance && last.alpha == policy.alpha;
  if (policy.adapt_shares && same_model) {
    controller.shares_.Restore(last.layer_weights, last.head_rates, policy.alpha);
    controller.CopyShares();
  }
  plan.generation = last.generation;
  plan.cause = last.cause;
  if (!(plan == last)) controller.NextGeneration("start");
  controller.loop_.Restart(clock.Now());
  return controller;
}

void Controller::SetAmount(std::int64_t amount) {
  plan_.max_budget = policy_.coverage > 0 ? amount : policy_.max_budget;
  plan_.budget = amount;
  signals_.MassOutdated(clock_->Now());
}

void Controller::CopyShares() {
  plan_.layer_weights = shares_.layer_weights();
  plan_.head_rates = shares_.head_rates();
}

void Controller::NextGeneration(std::string_view cause) {
  MASKKV_CHECK(plan_.generation < kMaxGeneration, "generations do not run out");
  ++plan_.generation;
  plan_.cause = cause;
}

absl::StatusOr<bool> Controller::SetPolicy(const Policy& policy) {
  MASKKV_RETURN_IF_ERROR(Validate(policy));
  const Policy next = Canonical(policy);
  if (next == policy_) return false;
  const bool new_amount = AmountAtRest(next) != AmountAtRest(policy_) ||
                          next.coverage != policy_.coverage || !next.adapt_budget;
  const std::int64_t amount =
      new_amount ? AmountAtRest(next) : std::clamp(Amount(), next.min_budget, next.max_budget);
  const bool amount_moves = amount != Amount() || next.coverage != policy_.coverage;
  if (!next.adapt_shares) shares_.Reset();
  if (next.alpha != policy_.alpha) shares_.ResetRates();
  policy_ = next;
  plan_.coverage = next.coverage;
  plan_.alpha = next.alpha;
  plan_.beta = next.beta;
  if (amount_moves) {
    SetAmount(amount);
    loop_.Restart(clock_->Now());
  }
  if (next.coverage == 0) plan_.max_budget = next.max_budget;
  CopyShares();
  NextGeneration("operator");
  return true;
}

absl::Status Controller::Observe(const Observation& observation) {
  MASKKV_RETURN_IF_ERROR(Validate(observation));
  const auto* prefill = std::get_if<PrefillObservation>(&observation.seen);
  if (prefill != nullptr) {
    if (!plan_.model_fingerprint.empty() && prefill->model_fingerprint != plan_.model_fingerprint) {
      return MakeError(absl::StatusCode::kFailedPrecondition, "MODEL_MISMATCH",
                       "report.prefill: expected the plan's model, found another one's");
    }
    if (!shares_.Fits(prefill->layer_mass.size(), prefill->preference.size())) {
      return MakeError(
          absl::StatusCode::kInvalidArgument, "BAD_REPORT",
          absl::StrFormat("report.prefill: expected %d layers of %d heads, found %d layer masses "
                          "and %d preferences",
                          shares_.layers(), shares_.kv_heads(), prefill->layer_mass.size(),
                          prefill->preference.size()),
          {{"field", "layer_mass"}});
    }
  }
  const TimePoint now = clock_->Now();
  MASKKV_RETURN_IF_ERROR(signals_.Observe(observation, now));
  if (prefill != nullptr && prefill->prefills > 0) {
    shares_.Observe(prefill->prefills, prefill->layer_mass, prefill->preference, now);
  }
  return absl::OkStatus();
}

bool Controller::Tick() {
  const TimePoint now = clock_->Now();
  signals_.Expire(now);
  if (policy_.adapt_budget) {
    if (const auto step = loop_.Next(Amount(), policy_, signals_.At(now), now)) {
      SetAmount(step->amount);
      NextGeneration(step->cause);
      return true;
    }
  }
  if (policy_.adapt_shares && shares_.Step(policy_.alpha, now)) {
    CopyShares();
    NextGeneration("weights");
    return true;
  }
  return false;
}

void Controller::CheckInvariants() const {
  MASKKV_CHECK(Validate(plan_).ok(), "the plan is valid");
  MASKKV_CHECK(Validate(policy_).ok(), "the policy is valid");
  MASKKV_CHECK(Amount() >= policy_.min_budget && Amount() <= policy_.max_budget,
               "the amount is within the operator's limits");
  MASKKV_CHECK(plan_.coverage == policy_.coverage && plan_.alpha == policy_.alpha &&
                   plan_.beta == policy_.beta,
               "the plan follows the policy");
  MASKKV_CHECK(
      plan_.layer_weights == shares_.layer_weights() && plan_.head_rates == shares_.head_rates(),
      "the plan holds the shares");
  signals_.CheckInvariants();
  loop_.CheckInvariants();
  shares_.CheckInvariants(policy_.alpha);
}

}  // namespace maskkv::budget
