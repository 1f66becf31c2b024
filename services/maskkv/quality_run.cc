// SPDX-License-Identifier: Apache-2.0
#include "services/maskkv/quality_run.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <optional>

#include "core/base/status_macros.h"
#include "core/engine/quality.h"
#include "core/model/rope_scaling.h"
#include "services/maskkv/command.h"
#include "services/maskkv/common_flags.h"
#include "services/maskkv/flag_checks.h"
#include "services/maskkv/json_report.h"
#include "services/maskkv/progress.h"

namespace maskkv::cli {

void QualityFlags::Declare(CLI::App& app) {
  CLI::Option* wanted = app.add_flag(
      "--quality", quality,
      "Measure instead what budgets cost against the run that keeps every pair, and name one");
  app.add_option("--policy", policy, "Eviction policy whose budgets are measured")
      ->check(AnyPolicy())
      ->needs(wanted)
      ->capture_default_str();
  app.add_option("--budgets", budgets, "Budgets to measure")
      ->delimiter(',')
      ->check(IntegerIn(1, kLargestCount))
      ->needs(wanted)
      ->capture_default_str();
  app.add_option("--agreement", agreement,
                 "The named budget's least share of predictions that stay the same")
      ->check(NumberIn(0, 1))
      ->needs(wanted)
      ->capture_default_str();
  app.add_flag("--json", json, "Print the curve as one JSON object")->needs(wanted);
}

absl::StatusOr<budget::QualityCurve> MeasureQuality(
    ModelHost& host, std::span<const std::vector<std::int32_t>> prompts, std::int64_t gen_length,
    const QualityFlags& flags, const RopeFlags& rope) {
  std::vector<std::int64_t> budgets = flags.budgets;
  std::ranges::sort(budgets);
  const auto repeated = std::ranges::unique(budgets);
  budgets.erase(repeated.begin(), repeated.end());
  CacheFlags cache;
  cache.policy = flags.policy;
  std::vector<engine::EvictionPlan> plans;
  for (const std::int64_t budget : budgets) {
    cache.budget = budget;
    MASKKV_ASSIGN_OR_RETURN(plans.emplace_back(), cache.Plan(host.checkpoint(), /*seed=*/0));
  }
  DecodeFlags decode;
  decode.gen_length = gen_length;
  engine::GenerateParams params = decode.params();
  params.stop_ids = host.StopIds();
  engine::QualityMeter meter(host.transformer(), std::move(plans), params, host.pairs());
  ProgressBar progress("prompts", static_cast<std::int64_t>(prompts.size()));
  for (const std::vector<std::int32_t>& prompt : prompts) {
    MASKKV_ASSIGN_OR_RETURN(
        const double rope_scale,
        model::ResolveRopeScale(rope.choice(), host.config(), std::ssize(prompt) + gen_length));
    MASKKV_RETURN_IF_ERROR(meter.Add(
        prompt,
        [] { return Interrupted() ? absl::CancelledError("interrupted") : absl::OkStatus(); },
        rope_scale));
    progress.Advance();
  }
  return budget::QualityCurve{.model_fingerprint = host.checkpoint().Fingerprint(),
                              .policy = flags.policy,
                              .prompts = meter.prompts(),
                              .agreement = flags.agreement,
                              .points = meter.Points()};
}

void PrintQuality(const budget::QualityCurve& curve, const std::string& path,
                  const QualityFlags& flags) {
  if (flags.json) {
    PrintJson(Json::parse(budget::FormatQualityCurve(curve)));
    return;
  }
  std::printf("%8s %10s %12s %14s %10s\n", "budget", "agreement", "KL, nats", "equal answers",
              "kept mass");
  for (const budget::QualityPoint& point : curve.points) {
    std::printf("%8lld %9.2f%% %12.5f %7lld / %4lld %10.3f\n", static_cast<long long>(point.budget),
                100 * point.agreement(), point.divergence,
                static_cast<long long>(point.equal_answers), static_cast<long long>(curve.prompts),
                point.kept_mass);
  }
  const std::optional<std::int64_t> named = curve.NamedBudget();
  if (named) {
    std::printf("%s: B = %lld is the smallest with %g %% of predictions unchanged\n", path.c_str(),
                static_cast<long long>(*named), 100 * curve.agreement);
  } else {
    std::printf("%s: no budget leaves %g %% of predictions unchanged; measure larger ones\n",
                path.c_str(), 100 * curve.agreement);
  }
}

}  // namespace maskkv::cli
