// SPDX-License-Identifier: Apache-2.0
//
// Plans, policies and reports as values on one side, as messages of budget.proto on the other.
// What comes in is checked: whatever these functions return can be used. Pure functions.
#ifndef MASKKV_SERVICES_COMMON_PLAN_PROTO_H_
#define MASKKV_SERVICES_COMMON_PLAN_PROTO_H_

#include "absl/status/statusor.h"
#include "core/budget/observation.h"
#include "core/budget/plan.h"

namespace maskkv::v1 {
class Plan;
class Policy;
class ReportRequest;
}  // namespace maskkv::v1

namespace maskkv::services {

void FillPlan(const budget::Plan& plan, v1::Plan& message);
void FillPolicy(const budget::Policy& policy, v1::Policy& message);
void FillReport(const budget::Observation& observation, v1::ReportRequest& message);

// Errors: of budget::Validate; INVALID_ARGUMENT (BAD_PLAN) without an amount, with a coverage of 0.
absl::StatusOr<budget::Plan> ReadPlan(const v1::Plan& message);

// Errors: of budget::Validate; INVALID_ARGUMENT (BAD_POLICY) without an amount, with a coverage of
// 0.
absl::StatusOr<budget::Policy> ReadPolicy(const v1::Policy& message);

// Errors: of budget::Validate; INVALID_ARGUMENT (BAD_REPORT) without an observation.
absl::StatusOr<budget::Observation> ReadReport(const v1::ReportRequest& message);

}  // namespace maskkv::services

#endif  // MASKKV_SERVICES_COMMON_PLAN_PROTO_H_
