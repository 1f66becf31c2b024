// SPDX-License-Identifier: Apache-2.0
//
// The decode service's metrics, declared here and nowhere else. Handles do nothing unless they were
// made from a registry.
#ifndef MASKKV_SERVICES_DECODE_METRICS_H_
#define MASKKV_SERVICES_DECODE_METRICS_H_

#include <span>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "core/decoding/rule.h"
#include "core/telemetry/metrics.h"
#include "services/common/turns.h"

namespace maskkv::decode {

std::span<const telemetry::MetricSpec> MetricSpecs();

// What the step loop measures.
struct StepMetrics {
  telemetry::Histogram step_seconds;
  telemetry::Counter steps;
  telemetry::Histogram batch_size;
  telemetry::Counter rows_computed;
  telemetry::Counter rows_reused;
  telemetry::Gauge response_cache_bytes;
  telemetry::Counter refreshes;
  telemetry::Histogram refresh_seconds;
  services::TurnMetrics turns;
  // Sequences that wait, by reason.
  telemetry::Gauge waiting_for_place;
  telemetry::Gauge waiting_displaced;
  telemetry::Gauge waiting_for_reader;
};

// How a request ended, for maskkv_requests_finished_total.
enum class Outcome { kStop, kLength, kStopString, kCancelled, kDeadline, kRefused, kError };
inline constexpr int kOutcomes = 7;

// OK is not among them: it has a finish reason.
Outcome OutcomeOf(const absl::Status& status);

struct Metrics {
  StepMetrics step;
  telemetry::Gauge requests_running;
  telemetry::Gauge requests_waiting;
  telemetry::Gauge waiting_for_prefill;
  telemetry::Counter finished[kOutcomes];
  telemetry::Histogram request_seconds;
  telemetry::Histogram queue_seconds;
  telemetry::Histogram first_token_seconds;
  telemetry::Histogram output_token_seconds;
  telemetry::Counter prompt_tokens;
  telemetry::Counter generated_tokens;
  std::vector<telemetry::Histogram> tokens_per_step;  // by decoding::Rule; empty: not measured

  static Metrics Create(telemetry::Registry& registry);

  void Finish(Outcome outcome) const { finished[static_cast<int>(outcome)].Add(); }

  // A sample under the rule ended after `steps` steps that decided `tokens` positions.
  void ObserveTokensPerStep(decoding::Rule rule, std::int64_t tokens, std::int64_t steps) const;
};

}  // namespace maskkv::decode

#endif  // MASKKV_SERVICES_DECODE_METRICS_H_
