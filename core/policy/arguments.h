// SPDX-License-Identifier: Apache-2.0
//
// The checks that the functions of this folder share. Each returns OK or INVALID_ARGUMENT as one
// line: argument, what was expected, what was found. Pure, thread safe.
#ifndef MASKKV_CORE_POLICY_ARGUMENTS_H_
#define MASKKV_CORE_POLICY_ARGUMENTS_H_

#include <cstdint>
#include <limits>
#include <span>
#include <string_view>

#include "absl/status/status.h"

namespace maskkv::policy {

// Bounds under which every product of a budget and a count is an integer that a double holds
// exactly. Positions are int32; no model has this many layers or heads.
inline constexpr std::int64_t kMaxPromptTokens = std::numeric_limits<std::int32_t>::max();
inline constexpr std::int64_t kMaxUnits = std::int64_t{1} << 20;

// low <= value <= high.
absl::Status CheckInteger(std::string_view argument, std::int64_t value, std::int64_t low,
                          std::int64_t high);

// value in [0, 1]; NaN is refused.
absl::Status CheckRate(std::string_view argument, double value);

// 1 to kMaxUnits values (one a `unit`: "layer", "head"), each finite and >= 0, with a finite sum.
absl::Status CheckWeights(std::string_view argument, std::string_view unit,
                          std::span<const double> values);

// Every value finite and >= 0. `first_index` is added to the index in the message.
absl::Status CheckScores(std::span<const float> scores, std::int64_t first_index = 0);

}  // namespace maskkv::policy

#endif  // MASKKV_CORE_POLICY_ARGUMENTS_H_
