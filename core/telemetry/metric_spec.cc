// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <functional>
#include <string>
#include <string_view>

#include "absl/strings/str_format.h"
#include "core/telemetry/metrics.h"

namespace maskkv::telemetry {
namespace {

bool IsSnakeCase(std::string_view name) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
  };
  return !name.empty() && name.front() >= 'a' && name.front() <= 'z' &&
         std::all_of(name.begin(), name.end(), allowed);
}

absl::Status Broken(const MetricSpec& spec, std::string_view expected, std::string_view found) {
  return absl::InvalidArgumentError(
      absl::StrFormat("metric %s: expected %s, found \"%s\"", spec.name, expected, found));
}

absl::Status CheckName(const MetricSpec& spec) {
  if (!IsSnakeCase(spec.name)) return Broken(spec, "a snake_case name", spec.name);
  constexpr std::array<std::string_view, 3> kPrefixes{"maskkv_", "process_", "grpc_server_"};
  if (std::none_of(kPrefixes.begin(), kPrefixes.end(),
                   [&](std::string_view prefix) { return spec.name.starts_with(prefix); })) {
    return Broken(spec, "the prefix maskkv_ or that of a standard metric", spec.name);
  }
  const bool counter = spec.type == MetricType::kCounter;
  if (spec.name.ends_with("_total") != counter) {
    return Broken(spec, "_total at the end of counters and of nothing else", spec.name);
  }
  for (const std::string_view suffix : {"_count", "_sum", "_bucket"}) {
    if (spec.name.ends_with(suffix)) return Broken(spec, "no suffix of a histogram", suffix);
  }
  std::string_view stem = spec.name;
  if (counter) stem.remove_suffix(std::string_view("_total").size());
  for (const std::string_view unit : {"seconds", "bytes", "ratio"}) {
    const bool named =
        stem.ends_with(unit) && stem.substr(0, stem.size() - unit.size()).ends_with('_');
    if (named != (spec.unit == unit)) return Broken(spec, "its unit at the end", spec.unit);
  }
  return absl::OkStatus();
}

absl::Status CheckLabels(const MetricSpec& spec) {
  std::string_view rest = spec.labels;
  while (!rest.empty()) {
    const std::size_t comma = rest.find(',');
    const std::string_view label = rest.substr(0, comma);
    if (!IsSnakeCase(label)) return Broken(spec, "snake_case label names", spec.labels);
    for (const std::string_view forbidden :
         {"request", "request_id", "tenant", "address", "prompt", "error", "message"}) {
      if (label == forbidden) return Broken(spec, "no label of unbounded values", label);
    }
    if (comma == std::string_view::npos) break;
    rest.remove_prefix(comma + 1);
    if (rest.empty()) return Broken(spec, "label names between commas", spec.labels);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckMetricSpec(const MetricSpec& spec) {
  if (const absl::Status status = CheckName(spec); !status.ok()) return status;
  if (const absl::Status status = CheckLabels(spec); !status.ok()) return status;
  if (spec.unit.empty()) return Broken(spec, "a unit, \"1\" for counts", spec.unit);
  if (spec.help.empty() || !spec.help.ends_with('.') || spec.help.find('\n') != spec.help.npos) {
    return Broken(spec, "a help sentence on one line", spec.help);
  }
  const bool histogram = spec.type == MetricType::kHistogram;
  if (histogram == spec.buckets.empty()) return Broken(spec, "buckets on histograms only", "");
  const bool finite = std::all_of(spec.buckets.begin(), spec.buckets.end(),
                                  [](double bound) { return std::isfinite(bound); });
  const bool ascending = std::adjacent_find(spec.buckets.begin(), spec.buckets.end(),
                                            std::greater_equal<>()) == spec.buckets.end();
  if (!finite || !ascending) return Broken(spec, "finite ascending buckets", "others");
  return absl::OkStatus();
}

}  // namespace maskkv::telemetry
