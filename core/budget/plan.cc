// SPDX-License-Identifier: Apache-2.0
#include "core/budget/plan.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <string_view>

#include "absl/strings/str_format.h"
#include "core/base/error.h"
#include "core/base/status_macros.h"
#include "core/policy/arguments.h"
#include "core/policy/profile.h"

namespace maskkv::budget {
namespace {

constexpr std::size_t kFingerprintDigits = 64;
constexpr std::size_t kLongestCause = 64;
constexpr double kWeightTolerance = 1e-6;  // of the sum of the weights, a layer
constexpr double kLargestImportance = 2;   // 1 - cosine

// What is checked ("plan", "policy") and the reason that its errors carry.
struct Subject {
  std::string_view name;
  std::string_view reason;
};
constexpr Subject kPlan{"plan", "BAD_PLAN"};
constexpr Subject kPolicy{"policy", "BAD_POLICY"};

absl::Status Bad(const Subject& subject, std::string_view field, std::string_view expected,
                 std::string_view found) {
  return MakeError(
      absl::StatusCode::kInvalidArgument, subject.reason,
      absl::StrFormat("%s.%s: expected %s, found %s", subject.name, field, expected, found),
      {{"field", std::string(field)}});
}

absl::Status CheckInteger(const Subject& subject, std::string_view field, std::int64_t value,
                          std::int64_t low, std::int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return Bad(subject, field, absl::StrFormat("an integer from %d to %d", low, high),
             absl::StrFormat("%d", value));
}

absl::Status CheckNumber(const Subject& subject, std::string_view field, double value, double low,
                         double high) {
  if (value >= low && value <= high) return absl::OkStatus();  // false for NaN
  return Bad(subject, field, absl::StrFormat("a number from %g to %g", low, high),
             absl::StrFormat("%g", value));
}

absl::Status CheckNumbers(std::string_view field, std::span<const double> values, double low,
                          double high) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    MASKKV_RETURN_IF_ERROR(
        CheckNumber(kPlan, absl::StrFormat("%s[%d]", field, i), values[i], low, high));
  }
  return absl::OkStatus();
}

absl::Status CheckSize(std::string_view field, std::size_t size, std::int64_t most) {
  return CheckInteger(kPlan, absl::StrFormat("size of %s", field), static_cast<std::int64_t>(size),
                      0, most);
}

absl::Status CheckFingerprint(const std::string& text) {
  const bool digits = std::ranges::all_of(
      text, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
  if (text.empty() || (digits && text.size() == kFingerprintDigits)) return absl::OkStatus();
  return Bad(kPlan, "model_fingerprint", "nothing or 64 lower-case hexadecimal digits",
             absl::StrFormat("%d other characters", text.size()));
}

absl::Status CheckCause(const std::string& text) {
  const bool printable = std::ranges::all_of(text, [](char c) { return c >= ' ' && c <= '~'; });
  if (printable && text.size() <= kLongestCause) return absl::OkStatus();
  return Bad(kPlan, "cause", "at most 64 printable ASCII characters",
             absl::StrFormat("%d characters", text.size()));
}

absl::Status CheckLayers(const Plan& plan) {
  MASKKV_RETURN_IF_ERROR(
      CheckSize("layer_weights", plan.layer_weights.size(), policy::kMaxProfileLayers));
  MASKKV_RETURN_IF_ERROR(
      CheckSize("importance", plan.importance.size(), policy::kMaxProfileLayers));
  MASKKV_RETURN_IF_ERROR(CheckSize("head_rates", plan.head_rates.size(), policy::kMaxUnits));
  const std::size_t layers = std::max(plan.layer_weights.size(), plan.importance.size());
  const auto sum = static_cast<double>(plan.layer_weights.size());
  MASKKV_RETURN_IF_ERROR(CheckNumbers("layer_weights", plan.layer_weights, 0, sum));
  MASKKV_RETURN_IF_ERROR(CheckNumbers("importance", plan.importance, 0, kLargestImportance));
  MASKKV_RETURN_IF_ERROR(CheckNumbers("head_rates", plan.head_rates, 0, 1));
  double found = 0;
  for (const double weight : plan.layer_weights) found += weight;
  if (std::abs(found - sum) > kWeightTolerance * sum) {
    return Bad(kPlan, "layer_weights", absl::StrFormat("a sum of %g", sum),
               absl::StrFormat("%.9g", found));
  }
  const auto fits = [layers](const std::vector<double>& values) {
    return values.empty() || values.size() == layers;
  };
  if (!fits(plan.layer_weights) || !fits(plan.importance)) {
    return Bad(kPlan, "layer_weights", "as many as importance",
               absl::StrFormat("%d and %d", plan.layer_weights.size(), plan.importance.size()));
  }
  if (layers > 0 && plan.head_rates.size() % layers != 0) {
    return Bad(kPlan, "head_rates", absl::StrFormat("a multiple of %d layers", layers),
               absl::StrFormat("%d", plan.head_rates.size()));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Validate(const Plan& plan) {
  if (plan.generation == 0 || plan.generation > kMaxGeneration) {
    return Bad(kPlan, "generation", absl::StrFormat("1 to %d", kMaxGeneration),
               absl::StrFormat("%d", plan.generation));
  }
  MASKKV_RETURN_IF_ERROR(CheckFingerprint(plan.model_fingerprint));
  MASKKV_RETURN_IF_ERROR(CheckNumber(kPlan, "coverage", plan.coverage, 0, 1));
  const bool count = plan.coverage == 0;
  if (count) MASKKV_RETURN_IF_ERROR(CheckInteger(kPlan, "budget", plan.budget, 1, kMaxBudget));
  MASKKV_RETURN_IF_ERROR(
      CheckInteger(kPlan, "max_budget", plan.max_budget, count ? 0 : 1, kMaxBudget));
  MASKKV_RETURN_IF_ERROR(CheckNumber(kPlan, "alpha", plan.alpha, 0, 1));
  MASKKV_RETURN_IF_ERROR(CheckNumber(kPlan, "beta", plan.beta, 0, 1));
  MASKKV_RETURN_IF_ERROR(CheckLayers(plan));
  return CheckCause(plan.cause);
}

absl::Status Validate(const Policy& policy) {
  MASKKV_RETURN_IF_ERROR(CheckInteger(kPolicy, "max_budget", policy.max_budget, 1, kMaxBudget));
  MASKKV_RETURN_IF_ERROR(
      CheckInteger(kPolicy, "min_budget", policy.min_budget, 1, policy.max_budget));
  MASKKV_RETURN_IF_ERROR(CheckNumber(kPolicy, "coverage", policy.coverage, 0, 1));
  if (policy.coverage == 0) {
    MASKKV_RETURN_IF_ERROR(
        CheckInteger(kPolicy, "budget", policy.budget, policy.min_budget, policy.max_budget));
  }
  MASKKV_RETURN_IF_ERROR(CheckNumber(kPolicy, "alpha", policy.alpha, 0, 1));
  MASKKV_RETURN_IF_ERROR(CheckNumber(kPolicy, "beta", policy.beta, 0, 1));
  return CheckNumber(kPolicy, "target_mass", policy.target_mass, 0, 1);
}

}  // namespace maskkv::budget
