// SPDX-License-Identifier: Apache-2.0
//
// The plan that prefills follow by default and the policy that operators set, as the controller and
// its clients hold them (protos/maskkv/v1/budget.proto says what each field means). Values.
#ifndef MASKKV_CORE_BUDGET_PLAN_H_
#define MASKKV_CORE_BUDGET_PLAN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace maskkv::budget {

inline constexpr std::int64_t kMaxBudget = 2'147'483'647;  // positions are int32
// Far from any overflow, and a number that JSON keeps.
inline constexpr std::uint64_t kMaxGeneration = std::uint64_t{1} << 52;

struct Plan {
  std::uint64_t generation = 0;
  std::string model_fingerprint;
  std::int64_t budget = 64;  // B, when coverage is 0; else not used
  double coverage = 0;       // over 0: this share of the mass, at most max_budget pairs
  std::int64_t max_budget = 0;
  double alpha = 0.1;
  double beta = 0.4;
  std::vector<double> layer_weights;  // (layers), or empty
  std::vector<double> importance;     // (layers), or empty
  std::vector<double> head_rates;     // (layers * kv_heads), or empty
  std::string cause;

  bool operator==(const Plan&) const = default;
};

struct Policy {
  std::int64_t budget = 64;  // when coverage is 0: min_budget to max_budget; else not used
  double coverage = 0;
  std::int64_t min_budget = 16;
  std::int64_t max_budget = 512;
  double alpha = 0.1;
  double beta = 0.4;
  bool adapt_budget = true;
  bool adapt_shares = true;
  double target_mass = 0.9;

  bool operator==(const Policy&) const = default;
};

// What a peer or a file said is a plan; `layers` of layer_weights and importance agree, head_rates
// are a multiple of them.
// Errors: INVALID_ARGUMENT (BAD_PLAN) naming the field, expected, found.
absl::Status Validate(const Plan& plan);

// Errors: INVALID_ARGUMENT (BAD_POLICY) naming the field, expected, found.
absl::Status Validate(const Policy& policy);

}  // namespace maskkv::budget

#endif  // MASKKV_CORE_BUDGET_PLAN_H_
