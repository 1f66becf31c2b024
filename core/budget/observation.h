// SPDX-License-Identifier: Apache-2.0
//
// What the other services saw since their last report (protos/maskkv/v1/budget.proto says what each
// field means), as values. Whatever passes Validate is finite and of a sane size.
#ifndef MASKKV_CORE_BUDGET_OBSERVATION_H_
#define MASKKV_CORE_BUDGET_OBSERVATION_H_

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"

namespace maskkv::budget {

struct PrefillObservation {
  std::string model_fingerprint;
  std::int64_t prefills = 0;       // that used the plan's amount; the means are over these
  double mass = 0;                 // ignored without prefills
  std::vector<double> layer_mass;  // (layers), or empty
  std::vector<double> preference;  // (layers * kv_heads), or empty
  double queue_seconds = 0;
  std::int64_t waiting = 0;
};

struct DecodeObservation {
  double queue_seconds = 0;
  std::int64_t waiting = 0;
  std::int64_t running = 0;
};

struct CacheObservation {
  std::uint64_t capacity_bytes = 0;  // >= 1
  std::uint64_t allocated_bytes = 0;
  std::uint64_t leased_bytes = 0;
  std::int64_t refused = 0;
  std::int64_t evicted = 0;
};

struct Observation {
  std::string reporter;       // 1 to 128 printable ASCII characters
  double period_seconds = 0;  // 0.001 to 3,600
  std::variant<PrefillObservation, DecodeObservation, CacheObservation> seen;
};

// Shares may be past 1 by this much: they come from sums of floats.
inline constexpr double kShareTolerance = 1e-6;

// Errors: INVALID_ARGUMENT (BAD_REPORT) naming the field, expected, found: NaN, infinity, negative
// numbers, counts past 10^9, bytes past 2^60, shares past 1, waits past 10^6 seconds, too many
// layers or heads.
absl::Status Validate(const Observation& observation);

}  // namespace maskkv::budget

#endif  // MASKKV_CORE_BUDGET_OBSERVATION_H_
