// SPDX-License-Identifier: Apache-2.0
//
// What a program can read of an error besides its code: a reason (UPPER_SNAKE_CASE, listed in
// docs/errors.md), facts by name, and when to try again. They travel as payloads of an absl::Status
// inside a process and as google.rpc.ErrorInfo and RetryInfo between processes
// (services/common/status.h). Pure functions.
#ifndef MASKKV_CORE_BASE_ERROR_H_
#define MASKKV_CORE_BASE_ERROR_H_

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace maskkv {

using ErrorFacts = std::map<std::string, std::string>;

// A status with a reason. Facts name fields and limits, never prompt text, tokens, tenants or
// identifiers of ours. REQUIRES: code is not OK; reason matches [A-Z][A-Z0-9_]*.
absl::Status MakeError(absl::StatusCode code, std::string_view reason, std::string_view message,
                       const ErrorFacts& facts = {});

// `status` with the hint to wait at least so long before trying again.
absl::Status WithRetryAfter(absl::Status status, std::chrono::milliseconds wait);

// The reason; where none was set, the one that stands for the code ("INVALID_ARGUMENT" and so on).
// "" for OK.
std::string ErrorReason(const absl::Status& status);
ErrorFacts FactsOf(const absl::Status& status);
std::optional<std::chrono::milliseconds> RetryAfter(const absl::Status& status);

}  // namespace maskkv

#endif  // MASKKV_CORE_BASE_ERROR_H_
