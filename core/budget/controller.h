// SPDX-License-Identifier: Apache-2.0
//
// The budget controller: the operator's policy, what reporters saw, and time make the plan that
// prefills follow by default. Two independent loops: one on the amount (amount_loop.h), one on its
// shares among layers and heads (shares.h), over smoothed signals (signals.h). An explicit B of a
// request is none of its business: prefill uses it as it is.
//
// A value: a caller that must persist a plan before it publishes it works on a copy and assigns.
// Not thread safe; the clock is injected and outlives all copies. Nothing here waits.
//
// Invariants: Validate(Current()) and Validate(policy()) are OK; the amount is within the policy's
// limits; the generation rises by exactly one with every change and never otherwise.
#ifndef MASKKV_CORE_BUDGET_CONTROLLER_H_
#define MASKKV_CORE_BUDGET_CONTROLLER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/clock.h"
#include "core/budget/amount_loop.h"
#include "core/budget/observation.h"
#include "core/budget/plan.h"
#include "core/budget/shares.h"
#include "core/budget/signals.h"
#include "core/budget/tuning.h"

namespace maskkv::budget {

// Whose plan it is.
struct PlannedModel {
  std::string fingerprint;         // 64 hexadecimal digits; "": any model, uniform layers
  std::vector<double> importance;  // of a profile (equation 8), or empty: uniform layers
  std::int64_t layers = 0;         // 0: as many as importance; then without it shares never move
  std::int64_t kv_heads = 0;       // 0: known with the first report
};

class Controller {
 public:
  // The first plan: generation 1, the policy's amount, importance of the model, no weights and no
  // rates (equations 9 to 13 and alpha), cause "start".
  // Errors: INVALID_ARGUMENT (BAD_POLICY, BAD_PLAN) for a policy or a model that is none.
  static absl::StatusOr<Controller> Create(const PlannedModel& model, const Policy& policy,
                                           const Clock& clock, const Tuning& tuning = {});

  // Goes on from the plan of an earlier life. What still holds is kept: the amount within the
  // policy's limits, weights and rates if they are of the same model. If the plan comes out as it
  // was, so is the generation, else it is the next one, cause "start". Errors: as Create; of
  // `last`.
  static absl::StatusOr<Controller> Restore(const PlannedModel& model, const Policy& policy,
                                            const Plan& last, const Clock& clock,
                                            const Tuning& tuning = {});

  // Replaces the policy. A new amount at rest, new limits of a coverage or no adaptation make the
  // amount the policy's at once; else the amount in force goes on, within the new limits. Another
  // alpha or no adaptation of shares: rates (and weights) return to their start.
  // Returns: whether a generation was made: not if the policy is the one in force.
  // Errors: INVALID_ARGUMENT (BAD_POLICY); nothing changes then.
  absl::StatusOr<bool> SetPolicy(const Policy& policy);

  // Takes a report in; the plan changes with a later Tick only.
  // Errors: INVALID_ARGUMENT (BAD_REPORT) for numbers that cannot be or are not this model's shape;
  // FAILED_PRECONDITION (MODEL_MISMATCH) for another model's prefills; RESOURCE_EXHAUSTED
  // (TOO_MANY_REPORTERS). Nothing changes then.
  absl::Status Observe(const Observation& observation);

  // To be called about once a second. Returns: whether a generation was made. Amount and shares
  // never change in the same one.
  bool Tick();

  const Plan& Current() const { return plan_; }
  const Policy& policy() const { return policy_; }

  // For metrics.
  LoopInput Input() const { return signals_.At(clock_->Now()); }
  std::size_t reporters() const { return signals_.reporters(); }
  std::int64_t layers() const { return shares_.layers(); }
  std::int64_t kv_heads() const { return shares_.kv_heads(); }  // 0: not known
  const std::vector<double>& preference() const { return shares_.preference(); }

  void CheckInvariants() const;

 private:
  Controller(const PlannedModel& model, const Policy& policy, const Clock& clock,
             const Tuning& tuning);

  std::int64_t Amount() const { return policy_.coverage > 0 ? plan_.max_budget : plan_.budget; }
  void SetAmount(std::int64_t amount);
  void CopyShares();
  void NextGeneration(std::string_view cause);

  const Clock* clock_;
  Policy policy_;
  Plan plan_;
  Signals signals_;
  AmountLoop loop_;
  Shares shares_;
};

}  // namespace maskkv::budget

#endif  // MASKKV_CORE_BUDGET_CONTROLLER_H_
