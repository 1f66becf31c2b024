// SPDX-License-Identifier: Apache-2.0
#include "core/budget/signals.h"

#include <chrono>
#include <string>

#include "core/base/error.h"
#include "gtest/gtest.h"

namespace maskkv::budget::signals_test {
namespace {

using std::chrono::seconds;

constexpr TimePoint At(int second) { return TimePoint(seconds(second)); }

Observation Cache(double usage, std::int64_t refused = 0, std::int64_t evicted = 0,
                  const std::string& name = "cache") {
  CacheObservation seen;
  seen.capacity_bytes = 1'000'000;
  seen.leased_bytes = static_cast<std::uint64_t>(usage * 1e6);
  seen.refused = refused;
  seen.evicted = evicted;
  return {.reporter = name, .period_seconds = 5, .seen = seen};
}

Observation Prefill(std::int64_t prefills, double mass, const std::string& name = "prefill") {
  PrefillObservation seen;
  seen.prefills = prefills;
  seen.mass = mass;
  return {.reporter = name, .period_seconds = 5, .seen = seen};
}

Observation Decode(double queue_seconds, std::int64_t waiting) {
  return {.reporter = "decode",
          .period_seconds = 5,
          .seen = DecodeObservation{queue_seconds, waiting, 1}};
}

TEST(SignalsTest, NobodyHeardIsNoPressureAndNoMass) {
  const LoopInput input = Signals(Tuning{}).At(At(0));
  EXPECT_EQ(input.memory, 0);
  EXPECT_EQ(input.queue, 0);
  EXPECT_FALSE(input.memory_fresh);
  EXPECT_FALSE(input.prefill_heard);
  EXPECT_FALSE(input.mass.has_value());
}

TEST(SignalsTest, PressureIsLeasedShareAndRefusalsAndALittleOfEvictions) {
  Signals leased(Tuning{}), refusing(Tuning{}), evicting(Tuning{});
  for (int t = 0; t < 300; t += 5) {
    ASSERT_TRUE(leased.Observe(Cache(0.5), At(t)).ok());
    ASSERT_TRUE(refusing.Observe(Cache(0.5, 5), At(t)).ok());
    ASSERT_TRUE(evicting.Observe(Cache(0.5, 0, 5000), At(t)).ok());
  }
  EXPECT_NEAR(leased.At(At(295)).memory, 0.5, 1e-6);
  EXPECT_NEAR(refusing.At(At(295)).memory, 0.5 + 1 / 1.1, 1e-3);
  EXPECT_NEAR(evicting.At(At(295)).memory, 0.6, 1e-3);
}

TEST(SignalsTest, TheMostPressedReporterCounts) {
  Signals signals(Tuning{});
  ASSERT_TRUE(signals.Observe(Cache(0.9, 0, 0, "a"), At(0)).ok());
  ASSERT_TRUE(signals.Observe(Cache(0.1, 0, 0, "b"), At(0)).ok());
  EXPECT_NEAR(signals.At(At(0)).memory, 0.9, 1e-6);
}

TEST(SignalsTest, QueuePressureIsOneAtTheAllowedWait) {
  Signals signals(Tuning{});
  ASSERT_TRUE(signals.Observe(Decode(5, 0), At(0)).ok());
  EXPECT_DOUBLE_EQ(signals.At(At(0)).queue, 1);
  Signals waiting(Tuning{});
  ASSERT_TRUE(waiting.Observe(Decode(0, 32), At(0)).ok());
  EXPECT_DOUBLE_EQ(waiting.At(At(0)).queue, 0.125);
}

TEST(SignalsTest, ASilentReportersWordFadesAndIsForgotten) {
  Signals signals(Tuning{});
  ASSERT_TRUE(signals.Observe(Cache(0.8), At(0)).ok());
  EXPECT_NEAR(signals.At(At(15)).memory, 0.8, 1e-6);
  EXPECT_TRUE(signals.At(At(15)).memory_fresh);
  EXPECT_NEAR(signals.At(At(38)).memory, 0.8 * 22 / 45, 1e-6);
  EXPECT_FALSE(signals.At(At(38)).memory_fresh);
  EXPECT_EQ(signals.At(At(60)).memory, 0);
  signals.Expire(At(60));
  EXPECT_EQ(signals.reporters(), 0U);
  // Back again: the first word counts at once, as if it had never been here.
  ASSERT_TRUE(signals.Observe(Cache(0.3), At(100)).ok());
  EXPECT_NEAR(signals.At(At(100)).memory, 0.3, 1e-6);
  EXPECT_TRUE(signals.At(At(100)).memory_fresh);
}

TEST(SignalsTest, ReportersOfLongPeriodsStayFreshForLonger) {
  Signals signals(Tuning{});
  Observation slow = Cache(0.5);
  slow.period_seconds = 15;
  ASSERT_TRUE(signals.Observe(slow, At(0)).ok());
  EXPECT_TRUE(signals.At(At(45)).memory_fresh);
  EXPECT_FALSE(signals.At(At(46)).memory_fresh);
}

TEST(SignalsTest, MassCountsFromEnoughPrefillsAndByTheirNumber) {
  Signals signals(Tuning{});
  ASSERT_TRUE(signals.Observe(Prefill(6, 0.9, "a"), At(100)).ok());
  EXPECT_FALSE(signals.At(At(100)).mass.has_value());
  ASSERT_TRUE(signals.Observe(Prefill(2, 0.5, "b"), At(100)).ok());
  ASSERT_TRUE(signals.At(At(100)).mass.has_value());
  EXPECT_NEAR(*signals.At(At(100)).mass, 0.8, 1e-12);
}

TEST(SignalsTest, MassOfAnotherAmountIsForgottenAndOnlyThePartAfterTheChangeCounts) {
  Signals signals(Tuning{});
  ASSERT_TRUE(signals.Observe(Prefill(100, 0.2), At(100)).ok());
  signals.MassOutdated(At(100));
  EXPECT_FALSE(signals.At(At(100)).mass.has_value());
  ASSERT_TRUE(signals.Observe(Prefill(10, 0.2), At(101)).ok());  // 2 of them after the change
  ASSERT_TRUE(signals.Observe(Prefill(6, 0.6), At(106)).ok());
  ASSERT_TRUE(signals.At(At(106)).mass.has_value());
  EXPECT_NEAR(*signals.At(At(106)).mass, (2 * 0.2 + 6 * 0.6) / 8, 1e-12);
}

TEST(SignalsTest, MassIsForgottenWhenEveryPrefillIsSilent) {
  Signals signals(Tuning{});
  ASSERT_TRUE(signals.Observe(Prefill(20, 0.2), At(100)).ok());
  signals.Expire(At(161));
  EXPECT_FALSE(signals.At(At(161)).prefill_heard);
  ASSERT_TRUE(signals.Observe(Prefill(1, 0.9), At(170)).ok());
  EXPECT_TRUE(signals.At(At(170)).prefill_heard);
  EXPECT_FALSE(signals.At(At(170)).mass.has_value());
}

TEST(SignalsTest, ReportersAreBoundedAndTheForgottenMakeRoom) {
  Tuning tuning;
  tuning.max_reporters = 2;
  Signals signals(tuning);
  ASSERT_TRUE(signals.Observe(Cache(0.1, 0, 0, "a"), At(0)).ok());
  ASSERT_TRUE(signals.Observe(Cache(0.1, 0, 0, "b"), At(30)).ok());
  EXPECT_EQ(ErrorReason(signals.Observe(Cache(0.1, 0, 0, "c"), At(31))), "TOO_MANY_REPORTERS");
  EXPECT_TRUE(signals.Observe(Cache(0.1, 0, 0, "b"), At(32)).ok());
  EXPECT_TRUE(signals.Observe(Cache(0.1, 0, 0, "c"), At(60)).ok());
  signals.CheckInvariants();
}

}  // namespace
}  // namespace maskkv::budget::signals_test
