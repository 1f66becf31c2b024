// SPDX-License-Identifier: Apache-2.0
#include "core/engine/eviction_plan.h"

#include <cmath>

#include "absl/strings/str_format.h"

namespace maskkv::engine {
namespace {

absl::Status CheckRate(const char* name, double value) {
  if (value >= 0 && value <= 1) return absl::OkStatus();  // false for NaN
  return absl::InvalidArgumentError(
      absl::StrFormat("%s: expected a number from 0 to 1, found %g", name, value));
}

}  // namespace

absl::Status Validate(const EvictionPlan& plan, std::int64_t layers) {
  if (plan.selection == Selection::kFull) return absl::OkStatus();
  if (plan.budget < 1) {
    return absl::InvalidArgumentError(
        absl::StrFormat("budget: expected an integer >= 1, found %d", plan.budget));
  }
  if (plan.selection == Selection::kRandom) return absl::OkStatus();
  if (absl::Status status = CheckRate("alpha", plan.alpha); !status.ok()) return status;
  if (absl::Status status = CheckRate("beta", plan.beta); !status.ok()) return status;
  if (plan.layer_rule == LayerRule::kOffline &&
      static_cast<std::int64_t>(plan.importance.size()) != layers) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "importance: expected %d layers from a profile, found %d", layers, plan.importance.size()));
  }
  return absl::OkStatus();
}

}  // namespace maskkv::engine
