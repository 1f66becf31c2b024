// SPDX-License-Identifier: Apache-2.0
#include "services/budget/metrics.h"

#include <algorithm>
#include <array>
#include <string>

#include "core/budget/nominal_pairs.h"

namespace maskkv::budget_service {
namespace {

using telemetry::MetricSpec;
using telemetry::MetricType;

constexpr std::array kPairs{1.0,   2.0,   4.0,   8.0,    16.0,   32.0,  64.0,
                            128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0};

constexpr MetricSpec kGeneration{"maskkv_budget_generation", MetricType::kGauge, "1",
                                 "Generation of the plan in force."};
constexpr MetricSpec kTotalPairs{
    "maskkv_budget_total_pairs", MetricType::kGauge, "1",
    "Pairs of all layers and heads that a long prompt keeps under the plan in force, under a "
    "coverage the most."};
constexpr MetricSpec kLayerPairs{
    "maskkv_budget_layer_pairs", MetricType::kGauge, "1",
    "Mean pairs that a head of the layer keeps of a long prompt under the plan in force.", "layer"};
constexpr MetricSpec kHeadPairs{
    "maskkv_budget_head_pairs",
    MetricType::kHistogram,
    "1",
    "Pairs that heads keep of a long prompt: one observation a head of every plan made.",
    "",
    kPairs};
constexpr MetricSpec kUpdatesTotal{
    "maskkv_budget_updates_total", MetricType::kCounter, "1",
    "Changes of the plan asked for by operators and loops, by what became of them: applied, "
    "unchanged, refused, failed to be persisted.",
    "result"};
constexpr MetricSpec kMode{"maskkv_budget_mode", MetricType::kGauge, "1",
                           "Whether the plan is of this mode: fixed or adaptive count, coverage.",
                           "mode"};
constexpr MetricSpec kReports{"maskkv_budget_reports_total", MetricType::kCounter, "1",
                              "Reports of other services, by whether they were accepted.",
                              "result"};
constexpr MetricSpec kReporters{"maskkv_budget_reporters", MetricType::kGauge, "1",
                                "Reporters that are not forgotten."};
constexpr MetricSpec kMemory{"maskkv_budget_memory_pressure_ratio", MetricType::kGauge, "ratio",
                             "Memory pressure as the loop sees it: leased share, refusals and "
                             "evictions of the fullest arena."};
constexpr MetricSpec kQueue{"maskkv_budget_queue_pressure_ratio", MetricType::kGauge, "ratio",
                            "Queue pressure as the loop sees it, 1 at the longest wait allowed."};

constexpr std::array kSpecs{kGeneration, kTotalPairs, kLayerPairs, kHeadPairs, kUpdatesTotal,
                            kMode,       kReports,    kReporters,  kMemory,    kQueue};

constexpr std::array<const char*, kUpdates> kUpdateNames{"applied", "unchanged", "refused",
                                                         "failed"};

}  // namespace

std::span<const MetricSpec> MetricSpecs() { return kSpecs; }

Metrics::Metrics(telemetry::Registry& registry) : registry_(&registry) {
  for (std::size_t i = 0; i < kUpdates; ++i) {
    updates_[i] = registry.AddCounter(kUpdatesTotal, {{"result", kUpdateNames[i]}});
  }
  reports_accepted_ = registry.AddCounter(kReports, {{"result", "accepted"}});
  reports_refused_ = registry.AddCounter(kReports, {{"result", "refused"}});
  generation_ = registry.AddGauge(kGeneration);
  total_pairs_ = registry.AddGauge(kTotalPairs);
  reporters_ = registry.AddGauge(kReporters);
  memory_ = registry.AddGauge(kMemory);
  queue_ = registry.AddGauge(kQueue);
  mode_fixed_ = registry.AddGauge(kMode, {{"mode", "fixed"}});
  mode_adaptive_ = registry.AddGauge(kMode, {{"mode", "adaptive"}});
  mode_coverage_ = registry.AddGauge(kMode, {{"mode", "coverage"}});
  head_pairs_ = registry.AddHistogram(kHeadPairs);
}

void Metrics::Publish(const budget::Controller& controller) {
  const budget::Plan& plan = controller.Current();
  const bool coverage = plan.coverage > 0;
  const bool adaptive = controller.policy().adapt_budget || controller.policy().adapt_shares;
  generation_.Set(static_cast<double>(plan.generation));
  mode_coverage_.Set(coverage ? 1 : 0);
  mode_adaptive_.Set(!coverage && adaptive ? 1 : 0);
  mode_fixed_.Set(!coverage && !adaptive ? 1 : 0);
  const budget::NominalPairs pairs = budget::NominalPairsOf(
      plan, controller.layers(), controller.kv_heads(), controller.preference());
  total_pairs_.Set(pairs.total);
  for (const double head : pairs.heads) head_pairs_.Observe(head);
  if (registry_ == nullptr) return;
  const auto shown = std::min<std::size_t>(pairs.layers.size(), kMostLayers);
  for (std::size_t layer = layer_pairs_.size(); layer < shown; ++layer) {
    layer_pairs_.push_back(registry_->AddGauge(kLayerPairs, {{"layer", std::to_string(layer)}}));
  }
  for (std::size_t layer = 0; layer < shown; ++layer) layer_pairs_[layer].Set(pairs.layers[layer]);
}

void Metrics::ShowInput(const budget::Controller& controller) const {
  const budget::LoopInput input = controller.Input();
  reporters_.Set(static_cast<double>(controller.reporters()));
  memory_.Set(input.memory);
  queue_.Set(input.queue);
}

}  // namespace maskkv::budget_service
