// SPDX-License-Identifier: Apache-2.0
//
// A policy as a JSON object, for the state file and the audit log alike.
#ifndef MASKKV_SERVICES_BUDGET_POLICY_JSON_H_
#define MASKKV_SERVICES_BUDGET_POLICY_JSON_H_

#include "core/budget/plan.h"
#include "nlohmann/json_fwd.hpp"

namespace maskkv::budget_service {

// Every field, in the order of plan.h.
nlohmann::ordered_json PolicyJson(const budget::Policy& policy);

}  // namespace maskkv::budget_service

#endif  // MASKKV_SERVICES_BUDGET_POLICY_JSON_H_
