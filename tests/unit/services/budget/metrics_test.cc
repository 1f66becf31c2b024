// SPDX-License-Identifier: Apache-2.0
#include "services/budget/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "core/base/clock.h"
#include "tests/support/status_matchers.h"

namespace maskkv::budget_service {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(BudgetMetricsTest, DeclarationsObeyTheRules) {
  for (const telemetry::MetricSpec& spec : MetricSpecs()) {
    EXPECT_THAT(telemetry::CheckMetricSpec(spec), maskkv::testing::IsOk()) << spec.name;
  }
}

TEST(BudgetMetricsTest, ShowThePlanInForce) {
  const ManualClock clock;
  telemetry::Registry registry;
  Metrics metrics(registry);
  MASKKV_ASSERT_OK_AND_ASSIGN(
      const budget::Controller controller,
      budget::Controller::Create({.fingerprint = "", .importance = {}, .layers = 3, .kv_heads = 2},
                                 {}, clock));
  metrics.Publish(controller);
  metrics.Count(Update::kApplied);
  metrics.ShowInput(controller);
  const std::string text = registry.Scrape();
  EXPECT_THAT(text, HasSubstr("maskkv_budget_generation 1\n"));
  EXPECT_THAT(text, HasSubstr("maskkv_budget_total_pairs 384\n"));
  EXPECT_THAT(text, HasSubstr("maskkv_budget_layer_pairs{layer=\"2\"} 64\n"));
  EXPECT_THAT(text, HasSubstr("maskkv_budget_head_pairs_count 6\n"));
  EXPECT_THAT(text, HasSubstr("maskkv_budget_mode{mode=\"adaptive\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("maskkv_budget_mode{mode=\"coverage\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("maskkv_budget_updates_total{result=\"applied\"} 1\n"));
}

TEST(BudgetMetricsTest, LayersOfAHugeModelDoNotMakeTheScrapeHuge) {
  const ManualClock clock;
  telemetry::Registry registry;
  Metrics metrics(registry);
  MASKKV_ASSERT_OK_AND_ASSIGN(
      const budget::Controller controller,
      budget::Controller::Create({.fingerprint = "", .importance = {}, .layers = 4096}, {}, clock));
  metrics.Publish(controller);
  const std::string text = registry.Scrape();
  EXPECT_THAT(text, HasSubstr("layer=\"255\""));
  EXPECT_THAT(text, Not(HasSubstr("layer=\"256\"")));
}

TEST(BudgetMetricsTest, WithoutARegistryNothingHappens) {
  const ManualClock clock;
  Metrics metrics;
  MASKKV_ASSERT_OK_AND_ASSIGN(const budget::Controller controller,
                              budget::Controller::Create({}, {}, clock));
  metrics.Publish(controller);
  metrics.Count(Update::kFailed);
}

}  // namespace
}  // namespace maskkv::budget_service
