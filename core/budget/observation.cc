// SPDX-License-Identifier: Apache-2.0
#include "core/budget/observation.h"

#include <algorithm>
#include <cstddef>
#include <string_view>

#include "absl/strings/str_format.h"
#include "core/base/error.h"
#include "core/base/status_macros.h"
#include "core/policy/arguments.h"
#include "core/policy/profile.h"

namespace maskkv::budget {
namespace {

constexpr std::size_t kLongestName = 128;
constexpr double kShortestPeriod = 0.001;
constexpr double kLongestPeriod = 3600;
constexpr double kLongestWait = 1e6;
constexpr double kMostCount = 1e9;
constexpr auto kMostBytes = static_cast<double>(std::uint64_t{1} << 60);

absl::Status Bad(std::string_view field, std::string_view expected, std::string_view found) {
  return MakeError(absl::StatusCode::kInvalidArgument, "BAD_REPORT",
                   absl::StrFormat("report.%s: expected %s, found %s", field, expected, found),
                   {{"field", std::string(field)}});
}

absl::Status Check(std::string_view field, double value, double low, double high) {
  if (value >= low && value <= high) return absl::OkStatus();  // false for NaN
  return Bad(field, absl::StrFormat("a number from %g to %g", low, high),
             absl::StrFormat("%g", value));
}

absl::Status CheckCount(std::string_view field, std::int64_t value) {
  return Check(field, static_cast<double>(value), 0, kMostCount);
}

absl::Status CheckBytes(std::string_view field, std::uint64_t value, double low) {
  return Check(field, static_cast<double>(value), low, kMostBytes);
}

absl::Status CheckShares(std::string_view field, const std::vector<double>& values,
                         std::int64_t most) {
  if (values.size() > static_cast<std::size_t>(most)) {
    return Bad(field, absl::StrFormat("at most %d numbers", most),
               absl::StrFormat("%d", values.size()));
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    MASKKV_RETURN_IF_ERROR(
        Check(absl::StrFormat("%s[%d]", field, i), values[i], 0, 1 + kShareTolerance));
  }
  return absl::OkStatus();
}

absl::Status CheckQueue(double seconds, std::int64_t waiting) {
  MASKKV_RETURN_IF_ERROR(Check("queue_seconds", seconds, 0, kLongestWait));
  return CheckCount("waiting", waiting);
}

absl::Status CheckSeen(const PrefillObservation& seen) {
  MASKKV_RETURN_IF_ERROR(CheckCount("prefills", seen.prefills));
  MASKKV_RETURN_IF_ERROR(Check("mass", seen.mass, 0, 1 + kShareTolerance));
  MASKKV_RETURN_IF_ERROR(CheckShares("layer_mass", seen.layer_mass, policy::kMaxProfileLayers));
  MASKKV_RETURN_IF_ERROR(CheckShares("preference", seen.preference, policy::kMaxUnits));
  return CheckQueue(seen.queue_seconds, seen.waiting);
}

absl::Status CheckSeen(const DecodeObservation& seen) {
  MASKKV_RETURN_IF_ERROR(CheckCount("running", seen.running));
  return CheckQueue(seen.queue_seconds, seen.waiting);
}

absl::Status CheckSeen(const CacheObservation& seen) {
  MASKKV_RETURN_IF_ERROR(CheckBytes("capacity_bytes", seen.capacity_bytes, 1));
  MASKKV_RETURN_IF_ERROR(CheckBytes("allocated_bytes", seen.allocated_bytes, 0));
  MASKKV_RETURN_IF_ERROR(CheckBytes("leased_bytes", seen.leased_bytes, 0));
  MASKKV_RETURN_IF_ERROR(CheckCount("refused", seen.refused));
  return CheckCount("evicted", seen.evicted);
}

}  // namespace

absl::Status Validate(const Observation& observation) {
  const std::string& name = observation.reporter;
  const bool printable = std::ranges::all_of(name, [](char c) { return c >= ' ' && c <= '~'; });
  if (name.empty() || name.size() > kLongestName || !printable) {
    return Bad("reporter", "1 to 128 printable ASCII characters",
               absl::StrFormat("%d%s", name.size(), printable ? "" : " with others among them"));
  }
  MASKKV_RETURN_IF_ERROR(
      Check("period", observation.period_seconds, kShortestPeriod, kLongestPeriod));
  return std::visit([](const auto& seen) { return CheckSeen(seen); }, observation.seen);
}

}  // namespace maskkv::budget
