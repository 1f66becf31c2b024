// SPDX-License-Identifier: Apache-2.0
#include "services/maskkv/top_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace maskkv::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(MetricsPage, ReadsNamesLabelsEscapesAndValues) {
  const MetricsPage page = MetricsPage::Parse(
      "# HELP a_total Things.\n# TYPE a_total counter\n"
      "a_total 3\n"
      "b{x=\"1\",y=\"quo\\\"te\\\\\\n\"} 1.5e3 1700000000\n"
      "b{x=\"2\",y=\"\"} 2\n"
      "h_bucket{le=\"+Inf\"} 7\n");
  EXPECT_EQ(page.Sum("a_total"), 3);
  EXPECT_EQ(page.Sum("b"), 1502);
  EXPECT_EQ(page.Sum("b", "x", "2"), 2);
  EXPECT_EQ(page.Samples("b").front().labels.at("y"), "quo\"te\\\n");
  EXPECT_EQ(page.Sum("h_bucket", "le", "+Inf"), 7);
  EXPECT_FALSE(page.Has("c"));
  EXPECT_EQ(page.Sum("c"), 0);
}

TEST(MetricsPage, SkipsWhatIsNoSample) {
  for (const std::string text : {"", "\n\n", "a", "a x", "a{", "a{x", "a{x=\"", "a{x=\"1\"",
                                 "a{x=\"1\"}", "a{x=\"1\" 3", "a{x=\"1\\", "{} 1 2 3", " 1"}) {
    EXPECT_FALSE(MetricsPage::Parse(text).Has("a")) << text;
  }
}

TEST(MetricsPage, OfSeveralProcessesIsTheirSum) {
  MetricsPage page = MetricsPage::Parse("a 1\nb 2\n");
  page.Add(MetricsPage::Parse("a 10\nc 3\n"));
  EXPECT_EQ(page.Sum("a"), 11);
  EXPECT_EQ(page.Sum("c"), 3);
}

TEST(MetricsPage, NamesTheAddressThatDoesNotAnswer) {
  const auto page = MetricsPage::Fetch("127.0.0.1:1");
  ASSERT_EQ(page.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(page.status().message()), HasSubstr("127.0.0.1:1: expected metrics"));
}

TEST(TopView, ShowsRatesAndMeansOfTheTimeBetweenTwoReadings) {
  const MetricsPage before = MetricsPage::Parse(
      "maskkv_requests_running{service=\"decode\"} 1\n"
      "maskkv_requests_finished_total{finish_reason=\"stop\",service=\"decode\"} 10\n"
      "maskkv_decode_steps_total 100\nmaskkv_decode_step_seconds_sum 1\n"
      "maskkv_decode_step_seconds_count 100\n");
  const MetricsPage now = MetricsPage::Parse(
      "maskkv_requests_running{service=\"decode\"} 2\n"
      "maskkv_requests_running{service=\"prefill\"} 1\n"
      "maskkv_requests_waiting{service=\"decode\"} 5\n"
      "maskkv_requests_finished_total{finish_reason=\"stop\",service=\"decode\"} 14\n"
      "maskkv_requests_finished_total{finish_reason=\"length\",service=\"decode\"} 4\n"
      "maskkv_decode_steps_total 140\nmaskkv_decode_step_seconds_sum 1.4\n"
      "maskkv_decode_step_seconds_count 140\n");
  EXPECT_THAT(TopLines(before, now, 2.0),
              ElementsAre(HasSubstr("2 running, 5 waiting, 4.0/s finished"),
                          HasSubstr("20.0/s of 10.00 ms")));
}

TEST(TopView, CountsAProcessThatRestartedFromZero) {
  const MetricsPage before = MetricsPage::Parse("maskkv_decode_steps_total 1000\n");
  const MetricsPage now = MetricsPage::Parse("maskkv_decode_steps_total 30\n");
  EXPECT_THAT(TopLines(before, now, 3.0), ElementsAre(HasSubstr("10.0/s")));
}

TEST(TopView, ShowsMemoryAndBudgetsByLayerInNumericOrder) {
  const MetricsPage now = MetricsPage::Parse(
      "maskkv_cache_capacity_bytes{pool=\"host\"} 2097152\n"
      "maskkv_cache_allocated_bytes{pool=\"host\"} 1048576\n"
      "maskkv_cache_leased_bytes{pool=\"host\"} 512\nmaskkv_cache_leases 2\n"
      "maskkv_cache_entries{state=\"sealed\"} 3\n"
      "maskkv_budget_generation 4\nmaskkv_budget_total_pairs 640\n"
      "maskkv_budget_layer_pairs{layer=\"10\"} 20\nmaskkv_budget_layer_pairs{layer=\"2\"} 40\n");
  EXPECT_THAT(TopLines(now, now, 1.0),
              ElementsAre(HasSubstr("1.0 MiB of 2.0 MiB, 512 B leased by 2"),
                          HasSubstr("3 sealed, 0 reserved"), HasSubstr("generation 4, 640 pairs"),
                          HasSubstr("layer   2"), HasSubstr("layer  10")));
}

TEST(TopView, HasNothingToSayOfOtherMetrics) {
  const MetricsPage page = MetricsPage::Parse("go_goroutines 7\n");
  EXPECT_THAT(TopLines(page, page, 1.0), IsEmpty());
}

}  // namespace
}  // namespace maskkv::cli
