// SPDX-License-Identifier: Apache-2.0
//
// Whose plan a controller makes, from files. No weights are read.
#ifndef MASKKV_SERVICES_BUDGET_PLANNED_MODEL_H_
#define MASKKV_SERVICES_BUDGET_PLANNED_MODEL_H_

#include <string>

#include "absl/status/statusor.h"
#include "core/budget/controller.h"

namespace maskkv::budget_service {

// directory: a checkpoint, whose profile is `profile` or, if that is "", the one beside the
// weights, which may be absent. Without a directory the profile says which model it is for; without
// both the plan is for any model. Errors: of Checkpoint::Open and LoadProfile; FAILED_PRECONDITION
// for a profile of other weights.
absl::StatusOr<budget::PlannedModel> LoadPlannedModel(const std::string& directory,
                                                      const std::string& profile);

}  // namespace maskkv::budget_service

#endif  // MASKKV_SERVICES_BUDGET_PLANNED_MODEL_H_
