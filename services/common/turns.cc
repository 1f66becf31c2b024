// SPDX-License-Identifier: Apache-2.0
#include "services/common/turns.h"

#include <CLI/CLI.hpp>
#include <chrono>

#include "core/base/status_macros.h"
#include "core/schedule/file_turns.h"
#include "services/common/request_metrics.h"

namespace maskkv::services {

TurnMetrics TurnMetrics::Create(telemetry::Registry& registry, const std::string& service) {
  TurnMetrics metrics;
  metrics.wait = registry.AddHistogram(kTurnWait, {{"service", service}});
  metrics.missed = registry.AddCounter(kTurnsMissed, {{"service", service}});
  return metrics;
}

void TurnMetrics::Observe(const schedule::TurnWait& turn) const {
  if (turn.waited) wait.Observe(std::chrono::duration<double>(turn.time).count());
  if (turn.missed) missed.Add();
}

void DeclarePrefillShare(CLI::App& app, double& share) {
  app.add_option("--prefill-share", share,
                 "of a step's time that prefill may take before the next step; 0: one tile")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
}

void TurnFlags::Declare(CLI::App& app, schedule::Side side) {
  app.add_option("--turns", file,
                 "file by which prefill and decode on this machine take turns at the cores, steps "
                 "first; none: they compute side by side");
  if (side == schedule::Side::kTile) DeclarePrefillShare(app, prefill_share);
}

absl::StatusOr<std::shared_ptr<schedule::Turns>> TurnFlags::Open(schedule::Side side) const {
  if (file.empty()) return nullptr;
  schedule::FileTurnsOptions options;
  options.side = side;
  options.prefill_share = prefill_share;
  MASKKV_ASSIGN_OR_RETURN(std::unique_ptr<schedule::FileTurns> turns,
                          schedule::FileTurns::Open(file, options));
  return std::shared_ptr<schedule::Turns>(std::move(turns));
}

}  // namespace maskkv::services
