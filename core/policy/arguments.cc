// SPDX-License-Identifier: Apache-2.0
#include "core/policy/arguments.h"

#include <cmath>
#include <limits>

#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "core/policy/exact_sum.h"

namespace maskkv::policy {
namespace {

// False for NaN.
bool IsWeight(double value) { return value >= 0 && value <= std::numeric_limits<double>::max(); }

}  // namespace

absl::Status CheckInteger(std::string_view argument, std::int64_t value, std::int64_t low,
                          std::int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  const std::string expected = high == std::numeric_limits<std::int64_t>::max()
                                   ? absl::StrFormat("an integer >= %d", low)
                                   : absl::StrFormat("an integer from %d to %d", low, high);
  return absl::InvalidArgumentError(
      absl::StrFormat("%s: expected %s, found %d", argument, expected, value));
}

absl::Status CheckRate(std::string_view argument, double value) {
  if (value >= 0 && value <= 1) return absl::OkStatus();  // false for NaN
  return absl::InvalidArgumentError(
      absl::StrFormat("%s: expected a number from 0 to 1, found %g", argument, value));
}

absl::Status CheckWeights(std::string_view argument, std::string_view unit,
                          std::span<const double> values) {
  if (values.empty() || values.size() > static_cast<std::size_t>(kMaxUnits)) {
    return absl::InvalidArgumentError(absl::StrFormat("%s: expected 1 to %d %ss, found %d",
                                                      argument, kMaxUnits, unit, values.size()));
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (IsWeight(values[i])) continue;
    return absl::InvalidArgumentError(absl::StrFormat(
        "%s: %s %d: expected a finite number >= 0, found %g", argument, unit, i, values[i]));
  }
  if (const double sum = ExactSum(values); !IsWeight(sum)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: expected a finite sum over the %ss, found %g", argument, unit, sum));
  }
  return absl::OkStatus();
}

absl::Status CheckScores(std::span<const float> scores, std::int64_t first_index) {
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (scores[i] >= 0 && scores[i] <= std::numeric_limits<float>::max()) continue;
    return absl::InvalidArgumentError(
        absl::StrFormat("scores: position %d: expected a finite number >= 0, found %g",
                        first_index + static_cast<std::int64_t>(i), scores[i]));
  }
  return absl::OkStatus();
}

}  // namespace maskkv::policy
