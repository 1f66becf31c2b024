// SPDX-License-Identifier: Apache-2.0
#include "services/prefill/metrics.h"

#include <vector>

#include "core/policy/named_policy.h"
#include "services/common/request_metrics.h"

namespace maskkv::prefill {
namespace {

using telemetry::MetricSpec;
using telemetry::MetricType;

constexpr std::array kPhaseSeconds{0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005,
                                   0.01,   0.025,   0.05,   0.1,   0.25,   0.5,
                                   1.0,    2.5,     5.0,    10.0,  30.0,   60.0};
constexpr std::array kRatios{0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.99, 1.0};

constexpr MetricSpec kPhase{
    "maskkv_prefill_phase_seconds",
    MetricType::kHistogram,
    "seconds",
    "Time of a prefill's phases: forward (matrix products and attention), score (mask queries), "
    "select (budgets and top-k), pack (kept pairs into the entry), publish (reserve, digest, "
    "seal).",
    "phase",
    kPhaseSeconds};
constexpr MetricSpec kInputBytes{"maskkv_compress_input_bytes_total", MetricType::kCounter, "bytes",
                                 "K and V of the prompts that were compressed."};
constexpr MetricSpec kOutputBytes{"maskkv_compress_output_bytes_total", MetricType::kCounter,
                                  "bytes", "Entries that were made of them."};
constexpr MetricSpec kKept{"maskkv_pairs_kept_total", MetricType::kCounter, "1",
                           "Pairs that prefills kept, over layers and KV heads."};
constexpr MetricSpec kConsidered{"maskkv_pairs_considered_total", MetricType::kCounter, "1",
                                 "Pairs that there were to keep."};
constexpr MetricSpec kMass{"maskkv_score_mass_kept_ratio",
                           MetricType::kHistogram,
                           "ratio",
                           "Share of the mask-query score mass that a prefill kept.",
                           "",
                           kRatios};

constexpr MetricSpec kPolicies{"maskkv_prefills_total", MetricType::kCounter, "1",
                               "Forwards that made an entry, by eviction policy "
                               "(docs/policies.md); custom for one without a name of its own.",
                               "policy"};

constexpr std::array kSpecs{services::kRequestsRunning,
                            services::kRequestsWaiting,
                            services::kRequestsWaitingByReason,
                            services::kRequestsFinished,
                            services::kRequestDuration,
                            services::kRequestQueue,
                            services::kPromptTokens,
                            kPhase,
                            kInputBytes,
                            kOutputBytes,
                            kKept,
                            kConsidered,
                            kMass,
                            kPolicies,
                            services::kTurnWait,
                            services::kTurnsMissed};

constexpr std::array<const char*, kOutcomes> kOutcomeNames{
    "forward", "cached", "remembered", "explained", "cancelled", "deadline", "refused", "error"};

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
  const telemetry::Labels ours{{"service", "prefill"}};
  const auto waiting = [&](const char* reason) {
    return registry.AddGauge(services::kRequestsWaitingByReason,
                             {{"reason", reason}, {"service", "prefill"}});
  };
  const auto phase = [&](const char* name) {
    return registry.AddHistogram(kPhase, {{"phase", name}});
  };
  Metrics metrics;
  metrics.running = registry.AddGauge(services::kRequestsRunning, ours);
  metrics.waiting = registry.AddGauge(services::kRequestsWaiting, ours);
  metrics.waiting_for_forward = waiting("forward");
  metrics.waiting_joined = waiting("joined");
  for (std::size_t i = 0; i < kOutcomes; ++i) {
    metrics.finished[i] = registry.AddCounter(
        services::kRequestsFinished, {{"finish_reason", kOutcomeNames[i]}, {"service", "prefill"}});
  }
  metrics.request_seconds = registry.AddHistogram(services::kRequestDuration, ours);
  metrics.queue_seconds = registry.AddHistogram(services::kRequestQueue, ours);
  metrics.prompt_tokens = registry.AddCounter(services::kPromptTokens, ours);
  metrics.forward_seconds = phase("forward");
  metrics.score_seconds = phase("score");
  metrics.select_seconds = phase("select");
  metrics.pack_seconds = phase("pack");
  metrics.publish_seconds = phase("publish");
  metrics.input_bytes = registry.AddCounter(kInputBytes);
  metrics.output_bytes = registry.AddCounter(kOutputBytes);
  metrics.pairs_kept = registry.AddCounter(kKept);
  metrics.pairs_considered = registry.AddCounter(kConsidered);
  metrics.turns = services::TurnMetrics::Create(registry, "prefill");
  metrics.mass_kept = registry.AddHistogram(kMass);
  std::vector<std::string> labels = policy::PolicyNames();
  labels.emplace_back(policy::kCustomPolicy);
  for (const std::string& label : labels) {
    metrics.by_policy[label] = registry.AddCounter(kPolicies, {{"policy", label}});
  }
  return metrics;
}

void Metrics::CountPolicy(const engine::EvictionPlan& plan) const {
  // A coverage keeps by its own rule, whatever the plan's parts are.
  const auto counter = by_policy.find(plan.coverage > 0 ? std::string(policy::kCustomPolicy)
                                                        : policy::PolicyLabel(plan.Parts()));
  if (counter != by_policy.end()) counter->second.Add();
}

}  // namespace maskkv::prefill
