// SPDX-License-Identifier: Apache-2.0
//
// What of the controller survives a restart: the operator's policy and the plan in force with its
// generation. One JSON file:
//
//   {
//     "format": "maskkv budget state",
//     "version": 1,
//     "policy": {"budget": 64, "coverage": 0.0, "min_budget": 16, ...},   every field of Policy
//     "plan": {"generation": 7, "budget": 52, ..., "layer_weights": [...]}  every field of Plan
//   }
//
// Functions without state. Numbers survive a round trip bit for bit.
#ifndef MASKKV_SERVICES_BUDGET_STATE_FILE_H_
#define MASKKV_SERVICES_BUDGET_STATE_FILE_H_

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/budget/plan.h"

namespace maskkv::budget_service {

struct SavedState {
  budget::Policy policy;
  budget::Plan plan;

  bool operator==(const SavedState&) const = default;
};

// REQUIRES: policy and plan are valid.
std::string FormatState(const SavedState& state);

// Strict: every field once and of its type, no other fields, values that Validate accepts.
// Errors: INVALID_ARGUMENT, "FILE: field plan.alpha: expected ..., found ..."; FAILED_PRECONDITION
// for another version of the format.
absl::StatusOr<SavedState> ParseState(std::string_view text, const std::string& file);

// nullopt if there is no such file. Errors: as ParseState and ReadFile (core/base/file.h).
absl::StatusOr<std::optional<SavedState>> LoadState(const std::string& path);

// Replaces the file as a whole or not at all, and returns when it is on the device.
// Errors: as WriteFileAtomically.
absl::Status SaveState(const SavedState& state, const std::string& path);

}  // namespace maskkv::budget_service

#endif  // MASKKV_SERVICES_BUDGET_STATE_FILE_H_
