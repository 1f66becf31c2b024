// SPDX-License-Identifier: Apache-2.0
#include "core/telemetry/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

namespace maskkv::telemetry::metrics_test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr std::array<double, 2> kBuckets{0.5, 2};
constexpr MetricSpec kRequests{"maskkv_test_requests_total", MetricType::kCounter, "1", "Requests.",
                               "result"};
constexpr MetricSpec kWaiting{"maskkv_test_waiting", MetricType::kGauge, "1", "Waiting."};
constexpr MetricSpec kSeconds{"maskkv_test_wait_seconds",
                              MetricType::kHistogram,
                              "seconds",
                              "Time in the queue.",
                              "",
                              kBuckets};

// The value of a series in the text exposition.
double ValueOf(const Registry& registry, const std::string& series) {
  const std::string text = "\n" + registry.Scrape();
  const std::size_t at = text.find("\n" + series + " ");
  if (at == std::string::npos) return std::nan("");
  return std::strtod(text.c_str() + at + series.size() + 2, nullptr);
}

TEST(MetricsTest, WhatIsAddedIsScraped) {
  Registry registry;
  const Counter ok = registry.AddCounter(kRequests, {{"result", "ok"}});
  const Gauge waiting = registry.AddGauge(kWaiting);
  const Histogram seconds = registry.AddHistogram(kSeconds);
  ok.Add();
  ok.Add(2);
  waiting.Set(5);
  waiting.Add(-1);
  for (const double value : {0.25, 1.0, 3.0}) seconds.Observe(value);

  const std::string text = registry.Scrape();
  EXPECT_THAT(text, HasSubstr("# HELP maskkv_test_requests_total Requests.\n"
                              "# TYPE maskkv_test_requests_total counter\n"));
  EXPECT_EQ(ValueOf(registry, "maskkv_test_requests_total{result=\"ok\"}"), 3);
  EXPECT_EQ(ValueOf(registry, "maskkv_test_waiting"), 4);
  EXPECT_EQ(ValueOf(registry, "maskkv_test_wait_seconds_bucket{le=\"0.5\"}"), 1);
  EXPECT_EQ(ValueOf(registry, "maskkv_test_wait_seconds_bucket{le=\"2\"}"), 2);
  EXPECT_EQ(ValueOf(registry, "maskkv_test_wait_seconds_bucket{le=\"+Inf\"}"), 3);
  EXPECT_EQ(ValueOf(registry, "maskkv_test_wait_seconds_sum"), 4.25);
}

TEST(MetricsTest, ASeriesThatIsAskedForAgainIsTheSame) {
  Registry registry;
  registry.AddCounter(kRequests, {{"result", "ok"}}).Add();
  registry.AddCounter(kRequests, {{"result", "ok"}}).Add();
  registry.AddCounter(kRequests, {{"result", "bad"}}).Add();
  EXPECT_EQ(ValueOf(registry, "maskkv_test_requests_total{result=\"ok\"}"), 2);
  EXPECT_EQ(ValueOf(registry, "maskkv_test_requests_total{result=\"bad\"}"), 1);
}

TEST(MetricsTest, AHandleOutlivesTheTextThatItsSpecPointedTo) {
  Registry registry;
  std::string name = "maskkv_test_short_lived";
  const Gauge gauge = registry.AddGauge({name, MetricType::kGauge, "1", "Short."});
  name.assign(name.size(), 'x');
  gauge.Set(1);
  EXPECT_EQ(ValueOf(registry, "maskkv_test_short_lived"), 1);
}

TEST(MetricsTest, HandlesOfNoRegistryDoNothing) {
  Counter().Add();
  Gauge().Set(1);
  Gauge().Add(1);
  Histogram().Observe(1);
}

TEST(MetricsTest, EveryRegistryTellsBuildReadinessAndProcess) {
  const Registry registry;
  EXPECT_THAT(registry.Scrape(), HasSubstr("maskkv_build_info{"));
  EXPECT_EQ(ValueOf(registry, "maskkv_ready"), 0);
  EXPECT_EQ(ValueOf(registry, "maskkv_draining"), 0);
  registry.ready().Set(1);
  registry.draining().Set(1);
  EXPECT_EQ(ValueOf(registry, "maskkv_ready"), 1);
  EXPECT_EQ(ValueOf(registry, "maskkv_draining"), 1);
  for (const char* name : {"process_cpu_seconds_total", "process_resident_memory_bytes",
                           "process_virtual_memory_bytes", "process_open_fds", "process_max_fds",
                           "process_start_time_seconds", "process_threads"}) {
    EXPECT_GT(ValueOf(registry, name), 0) << name;
  }
  EXPECT_GE(ValueOf(registry, "process_open_fds"), 3);
  EXPECT_GT(ValueOf(registry, "process_start_time_seconds"), 1.7e9);
}

TEST(MetricsTest, TheConfigurationIsLabels) {
  Registry registry;
  EXPECT_THAT(registry.Scrape(), Not(HasSubstr("maskkv_config_info")));
  registry.SetConfigInfo("tiny", "ab", "1", "f32");
  EXPECT_EQ(ValueOf(registry,
                    "maskkv_config_info{kv_dtype=\"f32\",layout_version=\"1\","
                    "model_fingerprint=\"ab\",model_name=\"tiny\"}"),
            1);
}

TEST(MetricsTest, ManyThreadsCountWithoutLoss) {
  Registry registry;
  std::vector<std::jthread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 1000; ++j) registry.AddCounter(kRequests, {{"result", "ok"}}).Add();
    });
  }
  for (int i = 0; i < 10; ++i) EXPECT_THAT(registry.Scrape(), HasSubstr("maskkv_ready"));
  threads.clear();
  EXPECT_EQ(ValueOf(registry, "maskkv_test_requests_total{result=\"ok\"}"), 4000);
}

using MetricsDeathTest = ::testing::Test;

TEST(MetricsDeathTest, MisuseByOurOwnCodeAborts) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  Registry registry;
  EXPECT_DEATH(registry.AddGauge(kRequests), "another type");
  EXPECT_DEATH(registry.AddCounter(kRequests), "labels are not those");
  EXPECT_DEATH(registry.AddCounter(kRequests, {{"other", "ok"}}), "labels are not those");
  EXPECT_DEATH(registry.AddGauge({"waiting", MetricType::kGauge, "1", "A."}), "prefix");
  EXPECT_DEATH(registry.AddCounter(kRequests, {{"result", "ok"}}).Add(-1), "only rises");
  registry.AddGauge(kWaiting);
  EXPECT_DEATH(registry.AddGauge({kWaiting.name, MetricType::kGauge, "1", "Other help."}),
               "same name");
}

}  // namespace
}  // namespace maskkv::telemetry::metrics_test
