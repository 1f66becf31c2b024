// SPDX-License-Identifier: Apache-2.0
//
// How a service takes turns at the cores (core/schedule/turns.h): the flag of services that are
// processes of their own, and what both sides measure.
#ifndef MASKKV_SERVICES_COMMON_TURNS_H_
#define MASKKV_SERVICES_COMMON_TURNS_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "core/schedule/turns.h"
#include "core/telemetry/metrics.h"

namespace CLI {
class App;
}

namespace maskkv::services {

// Observes nothing unless it was made from a registry.
struct TurnMetrics {
  telemetry::Histogram wait;
  telemetry::Counter missed;

  static TurnMetrics Create(telemetry::Registry& registry, const std::string& service);
  void Observe(const schedule::TurnWait& turn) const;
};

struct TurnFlags {
  std::string file;
  double prefill_share = schedule::kPrefillShare;

  // --turns FILE and, of prefill, --prefill-share.
  void Declare(CLI::App& app, schedule::Side side);
  // Null without a file. Errors: of FileTurns::Open.
  absl::StatusOr<std::shared_ptr<schedule::Turns>> Open(schedule::Side side) const;
};

// Declares --prefill-share.
void DeclarePrefillShare(CLI::App& app, double& share);

}  // namespace maskkv::services

#endif  // MASKKV_SERVICES_COMMON_TURNS_H_
