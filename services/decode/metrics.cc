// SPDX-License-Identifier: Apache-2.0
#include "services/decode/metrics.h"

#include <array>

#include "services/common/request_metrics.h"

namespace maskkv::decode {
namespace {

using telemetry::MetricSpec;
using telemetry::MetricType;

constexpr std::array kStepSeconds{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
                                  0.25,   0.5,   1.0,    2.5,   5.0,  10.0,  30.0};
constexpr std::array kTokensPerStep{1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0, 32.0};
constexpr std::array kSequences{1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0};

constexpr MetricSpec kFirstToken{"maskkv_time_to_first_token_seconds",
                                 MetricType::kHistogram,
                                 "seconds",
                                 "From arrival to the first committed token sent.",
                                 "",
                                 services::kRequestSecondsBuckets};
constexpr MetricSpec kOutputToken{"maskkv_time_per_output_token_seconds",
                                  MetricType::kHistogram,
                                  "seconds",
                                  "Mean time of a sample's steps by token of its answer.",
                                  "",
                                  kStepSeconds};
constexpr MetricSpec kGenerated{"maskkv_generated_tokens_total", MetricType::kCounter, "1",
                                "Answer tokens of samples that finished."};
constexpr MetricSpec kPerStep{"maskkv_tokens_per_step",
                              MetricType::kHistogram,
                              "1",
                              "Positions that a sample's steps decided, by step, of samples that "
                              "finished; by decoding rule (docs/decoding.md).",
                              "rule",
                              kTokensPerStep};
constexpr MetricSpec kStep{"maskkv_decode_step_seconds",
                           MetricType::kHistogram,
                           "seconds",
                           "Time of one denoising step of the whole batch.",
                           "",
                           kStepSeconds};
constexpr MetricSpec kSteps{"maskkv_decode_steps_total", MetricType::kCounter, "1",
                            "Denoising steps of the batch."};
constexpr MetricSpec kBatch{"maskkv_decode_batch_size",
                            MetricType::kHistogram,
                            "1",
                            "Sequences that took part in a step.",
                            "",
                            kSequences};
constexpr MetricSpec kComputed{"maskkv_response_rows_computed_total", MetricType::kCounter, "1",
                               "Response rows that steps computed."};
constexpr MetricSpec kReused{"maskkv_response_rows_reused_total", MetricType::kCounter, "1",
                             "Response rows that steps took over from an earlier step."};
constexpr MetricSpec kRefreshes{"maskkv_decode_refreshes_total", MetricType::kCounter, "1",
                                "Entries that took the place of a running sequence's entry."};
constexpr MetricSpec kResponseCache{
    "maskkv_response_cache_bytes", MetricType::kGauge, "bytes",
    "What sequences hold for their response caches (Sampler.response_every)."};
constexpr MetricSpec kRefresh{"maskkv_decode_refresh_seconds",
                              MetricType::kHistogram,
                              "seconds",
                              "Time a sequence waited for a refresh of its entry.",
                              "",
                              services::kRequestSecondsBuckets};

constexpr std::array kSpecs{services::kRequestsRunning,
                            services::kRequestsWaiting,
                            services::kRequestsWaitingByReason,
                            services::kRequestsFinished,
                            services::kRequestDuration,
                            services::kRequestQueue,
                            services::kPromptTokens,
                            kFirstToken,
                            kOutputToken,
                            kGenerated,
                            kPerStep,
                            kStep,
                            kSteps,
                            kBatch,
                            kComputed,
                            kReused,
                            kResponseCache,
                            kRefreshes,
                            kRefresh,
                            services::kTurnWait,
                            services::kTurnsMissed};

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

void Metrics::ObserveTokensPerStep(decoding::Rule rule, std::int64_t tokens,
                                   std::int64_t steps) const {
  const auto index = static_cast<std::size_t>(rule);
  if (index >= tokens_per_step.size() || steps == 0) return;
  tokens_per_step[index].Observe(static_cast<double>(tokens) / static_cast<double>(steps));
}

Metrics Metrics::Create(telemetry::Registry& registry) {
  const telemetry::Labels ours{{"service", "decode"}};
  const auto waiting = [&](const char* reason) {
    return registry.AddGauge(services::kRequestsWaitingByReason,
                             {{"reason", reason}, {"service", "decode"}});
  };
  Metrics metrics;
  metrics.step.step_seconds = registry.AddHistogram(kStep);
  metrics.step.steps = registry.AddCounter(kSteps);
  metrics.step.batch_size = registry.AddHistogram(kBatch);
  metrics.step.rows_computed = registry.AddCounter(kComputed);
  metrics.step.rows_reused = registry.AddCounter(kReused);
  metrics.step.response_cache_bytes = registry.AddGauge(kResponseCache);
  metrics.step.refreshes = registry.AddCounter(kRefreshes);
  metrics.step.refresh_seconds = registry.AddHistogram(kRefresh);
  metrics.step.turns = services::TurnMetrics::Create(registry, "decode");
  metrics.step.waiting_for_place = waiting("place");
  metrics.step.waiting_displaced = waiting("displaced");
  metrics.step.waiting_for_reader = waiting("reader");
  metrics.waiting_for_prefill = waiting("prefill");
  metrics.requests_running = registry.AddGauge(services::kRequestsRunning, ours);
  metrics.requests_waiting = registry.AddGauge(services::kRequestsWaiting, ours);
  for (int i = 0; i < kOutcomes; ++i) {
    metrics.finished[i] = registry.AddCounter(
        services::kRequestsFinished,
        {{"finish_reason", kOutcomeNames[static_cast<std::size_t>(i)]}, {"service", "decode"}});
  }
  metrics.request_seconds = registry.AddHistogram(services::kRequestDuration, ours);
  metrics.queue_seconds = registry.AddHistogram(services::kRequestQueue, ours);
  metrics.first_token_seconds = registry.AddHistogram(kFirstToken);
  metrics.output_token_seconds = registry.AddHistogram(kOutputToken);
  metrics.prompt_tokens = registry.AddCounter(services::kPromptTokens, ours);
  metrics.generated_tokens = registry.AddCounter(kGenerated);
  for (const decoding::Rule rule : decoding::AllRules()) {
    metrics.tokens_per_step.push_back(
        registry.AddHistogram(kPerStep, {{"rule", std::string(decoding::Name(rule))}}));
  }
  return metrics;
}

}  // namespace maskkv::decode
