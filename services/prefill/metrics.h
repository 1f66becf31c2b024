// SPDX-License-Identifier: Apache-2.0
//
// The prefill service's metrics, declared here and, what decode has as well, in
// services/common/request_metrics.h. Handles do nothing unless they were made from a registry.
#ifndef MASKKV_SERVICES_PREFILL_METRICS_H_
#define MASKKV_SERVICES_PREFILL_METRICS_H_

#include <array>
#include <cstddef>
#include <map>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "core/engine/eviction_plan.h"
#include "core/telemetry/metrics.h"
#include "services/common/turns.h"

namespace maskkv::prefill {

std::span<const telemetry::MetricSpec> MetricSpecs();

// How a request ended, for maskkv_requests_finished_total.
enum class Outcome {
  kForward,
  kCached,
  kRemembered,
  kExplained,
  kCancelled,
  kDeadline,
  kRefused,
  kError
};
inline constexpr std::size_t kOutcomes = 8;

// REQUIRES: status is not OK.
Outcome OutcomeOf(const absl::Status& status);

struct Metrics {
  telemetry::Gauge running, waiting, waiting_for_forward, waiting_joined;
  std::array<telemetry::Counter, kOutcomes> finished;
  telemetry::Histogram request_seconds, queue_seconds;
  telemetry::Counter prompt_tokens;
  telemetry::Histogram forward_seconds, score_seconds, select_seconds, pack_seconds,
      publish_seconds;
  telemetry::Counter input_bytes, output_bytes;
  telemetry::Counter pairs_kept, pairs_considered;
  telemetry::Histogram mass_kept;
  services::TurnMetrics turns;
  std::map<std::string, telemetry::Counter> by_policy;  // by policy::PolicyLabel

  static Metrics Create(telemetry::Registry& registry);

  void CountPolicy(const engine::EvictionPlan& plan) const;
  void Finish(Outcome outcome) const { finished[static_cast<std::size_t>(outcome)].Add(); }
};

}  // namespace maskkv::prefill

#endif  // MASKKV_SERVICES_PREFILL_METRICS_H_
