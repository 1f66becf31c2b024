// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <set>
#include <string>

#include "core/telemetry/metrics.h"
#include "tests/support/status_matchers.h"

namespace maskkv::telemetry {
namespace {

using maskkv::testing::IsOk;
using maskkv::testing::StatusIs;
using ::testing::HasSubstr;

constexpr std::array<double, 3> kBuckets{0.1, 1, 10};

TEST(MetricSpecTest, SpecsThatFollowTheRulesAreTaken) {
  for (const MetricSpec& spec : {
           MetricSpec{"maskkv_requests_total", MetricType::kCounter, "1", "Requests."},
           MetricSpec{"maskkv_read_bytes_total", MetricType::kCounter, "bytes", "Bytes read."},
           MetricSpec{"maskkv_cache_usage_ratio", MetricType::kGauge, "ratio", "Used share.",
                      "pool"},
           MetricSpec{"maskkv_step_seconds", MetricType::kHistogram, "seconds", "Time of a step.",
                      "phase,kind", kBuckets},
           MetricSpec{"process_open_fds", MetricType::kGauge, "1", "Open file descriptors."},
       }) {
    EXPECT_THAT(CheckMetricSpec(spec), IsOk());
  }
}

TEST(MetricSpecTest, EachRuleNamesTheMetricThatBreaksIt) {
  static constexpr std::array<double, 2> kFalling{2, 1};
  static constexpr std::array<double, 2> kEndless{1, std::numeric_limits<double>::infinity()};
  const struct {
    MetricSpec spec;
    std::string complaint;
  } cases[] = {
      {{"maskkv_Requests_total", MetricType::kCounter, "1", "A."}, "snake_case name"},
      {{"", MetricType::kGauge, "1", "A."}, "snake_case name"},
      {{"requests_total", MetricType::kCounter, "1", "A."}, "prefix"},
      {{"maskkv_requests", MetricType::kCounter, "1", "A."}, "_total"},
      {{"maskkv_requests_total", MetricType::kGauge, "1", "A."}, "_total"},
      {{"maskkv_requests_count", MetricType::kGauge, "1", "A."}, "suffix of a histogram"},
      {{"maskkv_wait", MetricType::kGauge, "seconds", "A."}, "unit at the end"},
      {{"maskkv_wait_seconds", MetricType::kGauge, "1", "A."}, "unit at the end"},
      {{"maskkv_wait", MetricType::kGauge, "", "A."}, "a unit"},
      {{"maskkv_requests_total", MetricType::kCounter, "1", "A.", "Kind"}, "label names"},
      {{"maskkv_requests_total", MetricType::kCounter, "1", "A.", "a,,b"}, "label names"},
      {{"maskkv_requests_total", MetricType::kCounter, "1", "A.", "a,"}, "label names"},
      {{"maskkv_requests_total", MetricType::kCounter, "1", "A.", "tenant"}, "unbounded"},
      {{"maskkv_requests_total", MetricType::kCounter, "1", "no sentence"}, "help"},
      {{"maskkv_requests_total", MetricType::kCounter, "1", "Two\nlines."}, "help"},
      {{"maskkv_wait_seconds", MetricType::kHistogram, "seconds", "A."}, "buckets"},
      {{"maskkv_waiting", MetricType::kGauge, "1", "A.", "", kBuckets}, "buckets"},
      {{"maskkv_wait_seconds", MetricType::kHistogram, "seconds", "A.", "", kFalling}, "ascending"},
      {{"maskkv_wait_seconds", MetricType::kHistogram, "seconds", "A.", "", kEndless}, "finite"},
  };
  for (const auto& [spec, complaint] : cases) {
    EXPECT_THAT(CheckMetricSpec(spec),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         AllOf(HasSubstr("metric " + std::string(spec.name) + ": expected"),
                               HasSubstr(complaint))));
  }
}

TEST(MetricSpecTest, TheCommonSpecsObeyTheRules) {
  std::set<std::string_view> names;
  for (const MetricSpec& spec : CommonMetricSpecs()) {
    EXPECT_THAT(CheckMetricSpec(spec), IsOk());
    EXPECT_TRUE(names.insert(spec.name).second) << spec.name;
  }
  EXPECT_GE(names.size(), 11U);
}

}  // namespace
}  // namespace maskkv::telemetry
