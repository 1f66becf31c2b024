// SPDX-License-Identifier: Apache-2.0
#include "core/budget/observation.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace maskkv::budget::observation_test {
namespace {

using ::testing::HasSubstr;

const double kNaN = std::nan("");
constexpr double kInfinity = std::numeric_limits<double>::infinity();

Observation Of(decltype(Observation::seen) seen, double period = 5) {
  return {.reporter = "prefill-0", .period_seconds = period, .seen = std::move(seen)};
}

PrefillObservation Prefill() {
  return {.model_fingerprint = "",
          .prefills = 3,
          .mass = 0.9,
          .layer_mass = {0.9, 0.8},
          .preference = {0.5, 0.5, 1, 0},
          .queue_seconds = 0.1,
          .waiting = 2};
}

TEST(ObservationTest, AcceptsWhatReportersSend) {
  EXPECT_TRUE(Validate(Of(Prefill())).ok());
  EXPECT_TRUE(Validate(Of(DecodeObservation{0.5, 3, 8})).ok());
  EXPECT_TRUE(Validate(Of(CacheObservation{1 << 20, 1 << 19, 1 << 18, 0, 4})).ok());
}

TEST(ObservationTest, AShareMayBePastOneByRounding) {
  PrefillObservation seen = Prefill();
  seen.mass = 1 + 1e-7;
  EXPECT_TRUE(Validate(Of(seen)).ok());
}

TEST(ObservationTest, RefusesInsaneNumbersNamingTheField) {
  std::vector<std::pair<const char*, Observation>> cases;
  const auto prefill = [&](const char* field, auto spoil) {
    PrefillObservation seen = Prefill();
    spoil(seen);
    cases.emplace_back(field, Of(seen));
  };
  prefill("report.prefills", [](auto& s) { s.prefills = -1; });
  prefill("report.prefills", [](auto& s) { s.prefills = std::int64_t{1} << 62; });
  prefill("report.mass", [](auto& s) { s.mass = kNaN; });
  prefill("report.mass", [](auto& s) { s.mass = 1.5; });
  prefill("report.layer_mass[1]", [](auto& s) { s.layer_mass[1] = kInfinity; });
  prefill("report.layer_mass", [](auto& s) { s.layer_mass.assign(5000, 0.5); });
  prefill("report.preference[3]", [](auto& s) { s.preference[3] = -1; });
  prefill("report.queue_seconds", [](auto& s) { s.queue_seconds = kNaN; });
  prefill("report.queue_seconds", [](auto& s) { s.queue_seconds = 1e300; });
  prefill("report.waiting", [](auto& s) { s.waiting = -5; });
  cases.emplace_back("report.running", Of(DecodeObservation{0, 0, -1}));
  cases.emplace_back("report.capacity_bytes", Of(CacheObservation{}));
  cases.emplace_back("report.leased_bytes",
                     Of(CacheObservation{1, 1, std::numeric_limits<std::uint64_t>::max(), 0, 0}));
  cases.emplace_back("report.refused", Of(CacheObservation{1, 0, 0, -1, 0}));
  cases.emplace_back("report.evicted", Of(CacheObservation{1, 0, 0, 0, -1}));
  for (const double period : {0.0, -1.0, kNaN, kInfinity, 1e5}) {
    cases.emplace_back("report.period", Of(DecodeObservation{}, period));
  }
  for (const std::string& name : {std::string(), std::string(129, 'a'), std::string("a\n")}) {
    cases.emplace_back("report.reporter",
                       Observation{.reporter = name, .period_seconds = 1, .seen = {}});
  }
  for (const auto& [field, observation] : cases) {
    const absl::Status status = Validate(observation);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << field;
    EXPECT_EQ(ErrorReason(status), "BAD_REPORT");
    EXPECT_THAT(std::string(status.message()), HasSubstr(field));
  }
}

}  // namespace
}  // namespace maskkv::budget::observation_test
