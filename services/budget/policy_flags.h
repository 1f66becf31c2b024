// SPDX-License-Identifier: Apache-2.0
//
// The operator's first policy as flags, shared by maskkv-budgetd and whoever hosts the controller.
// A policy that was saved wins over them.
#ifndef MASKKV_SERVICES_BUDGET_POLICY_FLAGS_H_
#define MASKKV_SERVICES_BUDGET_POLICY_FLAGS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "core/budget/plan.h"

namespace CLI {
class App;
}

namespace maskkv::budget_service {

class PolicyFlags {
 public:
  // Adds --budget, --coverage, --quality, --min-budget, --max-budget, --alpha, --beta,
  // --adapt-budget,
  // --adapt-shares, --target-mass to `app`; they write to this object.
  void Declare(CLI::App& app);

  // Limits that were not given make room for a budget that was.
  // model_fingerprint: of the model that the plan is for, empty if it is not known.
  // Errors: INVALID_ARGUMENT (BAD_POLICY): flags that do not go together; of LoadQualityCurve,
  // INVALID_ARGUMENT for a curve that names no budget or is of another eviction policy than the
  // plan's, FAILED_PRECONDITION (MODEL_MISMATCH) for one of another model.
  absl::StatusOr<budget::Policy> policy(std::string_view model_fingerprint) const;

 private:
  absl::StatusOr<std::int64_t> NamedBudget(std::string_view model_fingerprint) const;

  budget::Policy policy_;
  std::optional<std::int64_t> min_budget_, max_budget_;
  std::string quality_;
};

}  // namespace maskkv::budget_service

#endif  // MASKKV_SERVICES_BUDGET_POLICY_FLAGS_H_
