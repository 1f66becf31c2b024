// SPDX-License-Identifier: Apache-2.0
#include "services/prefill/observations.h"

#include <gtest/gtest.h>

#include "maskkv/v1/budget.pb.h"

namespace maskkv::prefill {
namespace {

using std::chrono::milliseconds;

engine::PrefillResult ForwardOf(double kept, double preference) {
  engine::PrefillResult result;
  result.prompt_tokens = 10;
  for (int layer = 0; layer < 2; ++layer) {
    result.layers.push_back({.pairs = {1, 1},
                             .preference = {preference, 1 - preference},
                             .kept_mass = {kept, kept},
                             .prompt_mass = {1, 1 + layer * 1.0}});
  }
  return result;
}

TEST(ObservationsTest, TellsMeansOfThePeriodAndForgetsThem) {
  ManualClock clock;
  Observations observations(2, 2, clock);
  observations.AddForward(ForwardOf(0.5, 0.25));
  observations.AddForward(ForwardOf(1.0, 0.75));
  observations.AddWait(milliseconds(300));
  observations.AddWait(milliseconds(200));
  clock.Advance(milliseconds(1500));
  v1::ReportRequest report;
  observations.Take("model", 4, milliseconds(100), report);
  EXPECT_EQ(report.period().seconds(), 1);
  EXPECT_EQ(report.period().nanos(), 500'000'000);
  const v1::PrefillObservation& prefill = report.prefill();
  EXPECT_EQ(prefill.model_fingerprint(), "model");
  EXPECT_EQ(prefill.prefills(), 2);
  EXPECT_DOUBLE_EQ(prefill.mass(), (2.0 / 5 + 4.0 / 5) / 2);
  ASSERT_EQ(prefill.layer_mass_size(), 2);
  EXPECT_DOUBLE_EQ(prefill.layer_mass(0), 0.75);
  EXPECT_DOUBLE_EQ(prefill.layer_mass(1), 0.5);
  ASSERT_EQ(prefill.preference_size(), 4);
  EXPECT_DOUBLE_EQ(prefill.preference(3), 0.5);
  EXPECT_DOUBLE_EQ(prefill.queue_seconds(), 0.3);
  EXPECT_EQ(prefill.waiting(), 4);

  v1::ReportRequest next;
  observations.Take("model", 0, {}, next);
  EXPECT_EQ(next.prefill().prefills(), 0);
  EXPECT_EQ(next.prefill().layer_mass_size(), 0);
  EXPECT_EQ(next.prefill().queue_seconds(), 0);
}

TEST(ObservationsTest, TellsOfWhoStillWaits) {
  ManualClock clock;
  Observations observations(2, 2, clock);
  observations.AddWait(milliseconds(100));
  v1::ReportRequest report;
  observations.Take("", 1, milliseconds(900), report);
  EXPECT_DOUBLE_EQ(report.prefill().queue_seconds(), 0.9);
}

TEST(ObservationsTest, AnEmptyPromptSaysNothing) {
  ManualClock clock;
  Observations observations(2, 2, clock);
  engine::PrefillResult empty = ForwardOf(0, 0);
  empty.prompt_tokens = 0;
  observations.AddForward(empty);
  v1::ReportRequest report;
  observations.Take("", 0, {}, report);
  EXPECT_EQ(report.prefill().prefills(), 0);
}

}  // namespace
}  // namespace maskkv::prefill
