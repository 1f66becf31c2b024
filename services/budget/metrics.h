// SPDX-License-Identifier: Apache-2.0
//
// The budget controller's metrics, declared here and nowhere else. Handles do nothing unless they
// were made from a registry.
#ifndef MASKKV_SERVICES_BUDGET_METRICS_H_
#define MASKKV_SERVICES_BUDGET_METRICS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "core/budget/controller.h"
#include "core/telemetry/metrics.h"

namespace maskkv::budget_service {

std::span<const telemetry::MetricSpec> MetricSpecs();

// What became of a wish to change the plan, for maskkv_budget_updates_total: a new generation; the
// policy in force asked for again; refused; made but not to be persisted, so not published.
enum class Update { kApplied, kUnchanged, kRefused, kFailed };
inline constexpr int kUpdates = 4;

class Metrics {
 public:
  // Layers beyond this many have no series: a scrape stays small.
  static constexpr std::int64_t kMostLayers = 256;

  Metrics() = default;
  explicit Metrics(telemetry::Registry& registry);

  void Count(Update update) const { updates_[static_cast<int>(update)].Add(); }
  void CountReport(bool accepted) const { (accepted ? reports_accepted_ : reports_refused_).Add(); }

  // The plan that is in force from now on.
  void Publish(const budget::Controller& controller);
  // What the loop sees.
  void ShowInput(const budget::Controller& controller) const;

 private:
  telemetry::Registry* registry_ = nullptr;
  telemetry::Counter updates_[kUpdates];
  telemetry::Counter reports_accepted_, reports_refused_;
  telemetry::Gauge generation_, total_pairs_, reporters_, memory_, queue_;
  telemetry::Gauge mode_fixed_, mode_adaptive_, mode_coverage_;
  telemetry::Histogram head_pairs_;
  std::vector<telemetry::Gauge> layer_pairs_;
};

}  // namespace maskkv::budget_service

#endif  // MASKKV_SERVICES_BUDGET_METRICS_H_
