// SPDX-License-Identifier: Apache-2.0
//
// maskkv-metrics-doc: prints docs/metrics.md from the declarations of all services. A test compares
// the committed file with it. Exits with 1 where a declaration breaks the rules.
#include <algorithm>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>

#include "absl/strings/str_format.h"
#include "core/telemetry/metrics.h"
#include "services/budget/metrics.h"
#include "services/cache/metrics.h"
#include "services/common/call_interceptor.h"
#include "services/decode/metrics.h"
#include "services/prefill/metrics.h"

namespace maskkv {
namespace {

using telemetry::MetricSpec;
using telemetry::MetricType;

constexpr std::string_view kHead = R"(# Metrics

Generated from the declarations; do not edit. After a change: `build/release/bin/maskkv-metrics-doc > docs/metrics.md`.

Every process serves Prometheus text at `http://HOST:PORT/metrics`, the address it prints as `metrics` when it is ready. Base units; counters end in
`_total`. No label holds a request, tenant, address, prompt or error text, and no series stands for a single head. In `maskkv serve` all
services share one registry; the label `service` tells apart what several have.
)";

std::string_view TypeName(MetricType type) {
  switch (type) {
    case MetricType::kCounter:
      return "counter";
    case MetricType::kGauge:
      return "gauge";
    case MetricType::kHistogram:
      return "histogram";
  }
  return "";
}

std::string LabelCell(std::string_view labels) {
  std::string cell;
  while (!labels.empty()) {
    const std::size_t comma = std::min(labels.find(','), labels.size());
    if (!cell.empty()) cell += ", ";
    cell += absl::StrFormat("`%s`", labels.substr(0, comma));
    labels.remove_prefix(std::min(comma + 1, labels.size()));
  }
  return cell;
}

std::string Meaning(const MetricSpec& spec) {
  std::string text(spec.help);
  if (spec.buckets.empty()) return text;
  text += " Buckets:";
  for (const double bound : spec.buckets) text += absl::StrFormat(" %g", bound);
  return text + ".";
}

// Whether every spec obeys the rules.
bool PrintSection(std::string_view title, std::span<const MetricSpec> specs) {
  bool good = true;
  std::fputs(absl::StrFormat("\n## %s\n\n| name | type | unit | labels | meaning |\n"
                             "| --- | --- | --- | --- | --- |\n",
                             title)
                 .c_str(),
             stdout);
  for (const MetricSpec& spec : specs) {
    std::fputs(absl::StrFormat("| `%s` | %s | %s | %s | %s |\n", spec.name, TypeName(spec.type),
                               spec.unit, LabelCell(spec.labels), Meaning(spec))
                   .c_str(),
               stdout);
    if (const absl::Status status = CheckMetricSpec(spec); !status.ok()) {
      std::fprintf(stderr, "maskkv-metrics-doc: %s\n", std::string(status.message()).c_str());
      good = false;
    }
  }
  return good;
}

}  // namespace
}  // namespace maskkv

int main() {
  using maskkv::PrintSection;
  std::fputs(std::string(maskkv::kHead).c_str(), stdout);
  bool good = PrintSection("Every process", maskkv::telemetry::CommonMetricSpecs());
  good &= PrintSection("gRPC, every process", maskkv::services::CallMetricSpecs());
  good &= PrintSection("Prefill", maskkv::prefill::MetricSpecs());
  good &= PrintSection("Decode", maskkv::decode::MetricSpecs());
  good &= PrintSection("Cache manager", maskkv::cache::MetricSpecs());
  good &= PrintSection("Budget controller", maskkv::budget_service::MetricSpecs());
  return good && std::fflush(stdout) == 0 ? 0 : 1;
}
