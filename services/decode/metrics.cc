// SPDX-License-Identifier: Apache-2.0
#include "services/decode/metrics.h"

#include <array>

namespace maskkv::decode {
namespace {

using telemetry::MetricSpec;
using telemetry::MetricType;

constexpr std::array kRequestSeconds{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
                                     5.0,  10.0,  30.0, 60.0, 120.0, 300.0, 600.0};
constexpr std::array kStepSeconds{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
                                  0.25,   0.5,   1.0,    2.5,   5.0,  10.0,  30.0};
constexpr std::array kSequences{1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0};

constexpr MetricSpec kRunning{"maskkv_requests_running", MetricType::kGauge, "1",
                              "Generate requests whose sequences take steps or wait for readers."};
constexpr MetricSpec kWaiting{"maskkv_requests_waiting", MetricType::kGauge, "1",
                              "Generate requests that have not taken a step yet."};
constexpr MetricSpec kWaitingBy{
    "maskkv_requests_waiting_by_reason", MetricType::kGauge, "1",
    "What waits and for what: requests for prefill; sequences for a first place in the batch, for "
    "a place again after a higher priority took it, for their reader.",
    "reason"};
constexpr MetricSpec kFinished{"maskkv_requests_finished_total", MetricType::kCounter, "1",
                               "Generate requests that ended, by how (the last sample's finish).",
                               "finish_reason"};
constexpr MetricSpec kDuration{"maskkv_request_duration_seconds", MetricType::kHistogram, "seconds",
                               "From arrival of a Generate request to its end.", "",
                               kRequestSeconds};
constexpr MetricSpec kQueue{"maskkv_request_queue_seconds", MetricType::kHistogram, "seconds",
                            "From arrival to the first step, without prefill and mapping.", "",
                            kRequestSeconds};
constexpr MetricSpec kFirstToken{"maskkv_time_to_first_token_seconds", MetricType::kHistogram,
                                 "seconds", "From arrival to the first committed token sent.", "",
                                 kRequestSeconds};
constexpr MetricSpec kOutputToken{
    "maskkv_time_per_output_token_seconds", MetricType::kHistogram, "seconds",
    "Mean time of a sample's steps by token of its answer.", "", kStepSeconds};
constexpr MetricSpec kPromptTokens{"maskkv_prompt_tokens_total", MetricType::kCounter, "1",
                                   "Prompt tokens of requests that began to decode."};
constexpr MetricSpec kGenerated{"maskkv_generated_tokens_total", MetricType::kCounter, "1",
                                "Answer tokens of samples that finished."};
constexpr MetricSpec kStep{"maskkv_decode_step_seconds", MetricType::kHistogram, "seconds",
                           "Time of one denoising step of the whole batch.", "", kStepSeconds};
constexpr MetricSpec kSteps{"maskkv_decode_steps_total", MetricType::kCounter, "1",
                            "Denoising steps of the batch."};
constexpr MetricSpec kBatch{"maskkv_decode_batch_size", MetricType::kHistogram, "1",
                            "Sequences that took part in a step.", "", kSequences};
constexpr MetricSpec kComputed{"maskkv_response_rows_computed_total", MetricType::kCounter, "1",
                               "Response rows that steps computed."};
constexpr MetricSpec kReused{"maskkv_response_rows_reused_total", MetricType::kCounter, "1",
                             "Response rows that steps took over from an earlier step."};

constexpr std::array kSpecs{kRunning,    kWaiting,     kWaitingBy,    kFinished,  kDuration, kQueue,
                            kFirstToken, kOutputToken, kPromptTokens, kGenerated, kStep,     kSteps,
                            kBatch,      kComputed,    kReused};

constexpr std::array<const char*, kOutcomes> kOutcomeNames{
    "stop", "length", "stop_string", "cancelled", "deadline", "refused", "error"};

}  // namespace

std::span<const MetricSpec> MetricSpecs() { return kSpecs; }

Outcome OutcomeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kCancelled:
      return Outcome::kCancelled;
    case absl::StatusCode::kDeadlineExceeded:
      return Outcome::kDeadline;
    case absl::StatusCode::kDataLoss:
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kUnavailable:
      return Outcome::kError;
    default:
      return Outcome::kRefused;
  }
}

Metrics Metrics::Create(telemetry::Registry& registry) {
  const auto waiting = [&](const char* reason) {
    return registry.AddGauge(kWaitingBy, {{"reason", reason}});
  };
  Metrics metrics;
  metrics.step.step_seconds = registry.AddHistogram(kStep);
  metrics.step.steps = registry.AddCounter(kSteps);
  metrics.step.batch_size = registry.AddHistogram(kBatch);
  metrics.step.rows_computed = registry.AddCounter(kComputed);
  metrics.step.rows_reused = registry.AddCounter(kReused);
  metrics.step.waiting_for_place = waiting("place");
  metrics.step.waiting_displaced = waiting("displaced");
  metrics.step.waiting_for_reader = waiting("reader");
  metrics.waiting_for_prefill = waiting("prefill");
  metrics.requests_running = registry.AddGauge(kRunning);
  metrics.requests_waiting = registry.AddGauge(kWaiting);
  for (int i = 0; i < kOutcomes; ++i) {
    metrics.finished[i] = registry.AddCounter(
        kFinished, {{"finish_reason", kOutcomeNames[static_cast<std::size_t>(i)]}});
  }
  metrics.request_seconds = registry.AddHistogram(kDuration);
  metrics.queue_seconds = registry.AddHistogram(kQueue);
  metrics.first_token_seconds = registry.AddHistogram(kFirstToken);
  metrics.output_token_seconds = registry.AddHistogram(kOutputToken);
  metrics.prompt_tokens = registry.AddCounter(kPromptTokens);
  metrics.generated_tokens = registry.AddCounter(kGenerated);
  return metrics;
}

}  // namespace maskkv::decode
