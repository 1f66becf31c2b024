// SPDX-License-Identifier: Apache-2.0
//
// maskkv calibrate --quality: what budgets cost on a user's own prompts, without labels, and the
// budget that this names (core/engine/quality.h).
#ifndef MASKKV_SERVICES_MASKKV_QUALITY_RUN_H_
#define MASKKV_SERVICES_MASKKV_QUALITY_RUN_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/budget/quality_curve.h"
#include "services/maskkv/model_host.h"
#include "services/maskkv/rope_flags.h"

namespace CLI {
class App;
}

namespace maskkv::cli {

struct QualityFlags {
  bool quality = false;
  std::string policy = "maskkv";  // a name of docs/policies.md
  std::vector<std::int64_t> budgets{8, 16, 32, 64, 128, 256};
  double agreement = 0.99;
  bool json = false;

  // Adds --quality and what goes with it.
  void Declare(CLI::App& app);
};

// Measures; a progress bar where there is a terminal. prompts: token ids, at least one.
// Errors: of the engines; NOT_FOUND or FAILED_PRECONDITION if the policy needs a profile that is
// not there or of another checkpoint; CANCELLED after SIGINT or SIGTERM.
absl::StatusOr<budget::QualityCurve> MeasureQuality(
    ModelHost& host, std::span<const std::vector<std::int32_t>> prompts, std::int64_t gen_length,
    const QualityFlags& flags, const RopeFlags& rope);

// The curve as a table and the budget it names; with flags.json the object that the file holds.
void PrintQuality(const budget::QualityCurve& curve, const std::string& path,
                  const QualityFlags& flags);

}  // namespace maskkv::cli

#endif  // MASKKV_SERVICES_MASKKV_QUALITY_RUN_H_
