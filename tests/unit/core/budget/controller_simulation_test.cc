// SPDX-License-Identifier: Apache-2.0
//
// The loop closed over a plant (plant.h): does it settle, stay, recover, and bear silence?
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include "core/budget/controller.h"
#include "gtest/gtest.h"
#include "tests/support/seed.h"
#include "tests/unit/core/budget/plant.h"

namespace maskkv::budget {
namespace {

constexpr int kMinute = 60;

class Simulation {
 public:
  Simulation(const PlantOptions& options, const Policy& policy, std::uint64_t stream,
             std::int64_t start = 0)
      : plant(options, testing::Seed() + 7919 * stream, clock_), controller(Begin(policy, start)) {}

  void Run(int seconds) {
    for (int i = 0; i < seconds; ++i) {
      plant.RunASecond(controller);
      const Plan before = controller.Current();
      const bool changed = controller.Tick();
      controller.CheckInvariants();
      ++second_;
      if (changed) Note(before);
      amounts.push_back(Amount(controller.Current()));
      usage.push_back(plant.usage());
    }
  }

  // The amounts of the last so many seconds.
  std::vector<std::int64_t> Last(int seconds) const {
    return {amounts.end() - seconds, amounts.end()};
  }

  double MeanUsage(int seconds) const {
    return std::accumulate(usage.end() - seconds, usage.end(), 0.0) / seconds;
  }

  // Changes of direction among the steps after `second`.
  int Reversals(int second) const {
    int reversals = 0;
    int direction = 0;
    for (const auto& [at, step] : steps) {
      if (at <= second) continue;
      const int sign = step > 0 ? 1 : -1;
      if (direction != 0 && sign != direction) ++reversals;
      direction = sign;
    }
    return reversals;
  }

  int second() const { return second_; }

 private:
  ManualClock clock_;

 public:
  Plant plant;
  Controller controller;
  std::vector<std::int64_t> amounts;  // one a second
  std::vector<double> usage;
  std::vector<std::pair<int, std::int64_t>> steps;  // (second, change) of the amount
  std::vector<int> share_changes;                   // seconds

 private:
  static std::int64_t Amount(const Plan& plan) {
    return plan.coverage > 0 ? plan.max_budget : plan.budget;
  }

  Controller Begin(const Policy& policy, std::int64_t start) {
    const Controller fresh = *Controller::Create(plant.Model(), policy, clock_);
    if (start == 0) return fresh;
    Plan last = fresh.Current();
    last.budget = start;
    return *Controller::Restore(plant.Model(), policy, last, clock_);
  }

  void Note(const Plan& before) {
    const Plan& after = controller.Current();
    ASSERT_EQ(after.generation, before.generation + 1);
    if (after.cause == "weights") {
      share_changes.push_back(second_);
      ASSERT_EQ(Amount(after), Amount(before));
      return;
    }
    const std::int64_t step = Amount(after) - Amount(before);
    ASSERT_LE(std::abs(static_cast<double>(step)),
              std::max(1.0, 0.25 * static_cast<double>(Amount(before))));
    if (!steps.empty()) {
      ASSERT_GE(second_ - steps.back().first, 10) << "one change an interval";
    }
    steps.emplace_back(second_, step);
  }

  int second_ = 0;
};

Policy Operator() {
  Policy policy;
  policy.budget = 64;
  policy.min_budget = 8;
  policy.max_budget = 512;
  policy.target_mass = 0.9;
  return policy;
}

std::int64_t Least(const std::vector<std::int64_t>& amounts) {
  return *std::ranges::min_element(amounts);
}
std::int64_t Most(const std::vector<std::int64_t>& amounts) {
  return *std::ranges::max_element(amounts);
}

// The share of the time that the amount is within `band` (relative) of its mean.
double ShareNearMean(const std::vector<std::int64_t>& amounts, double band) {
  const auto count = static_cast<double>(amounts.size());
  const double mean = std::accumulate(amounts.begin(), amounts.end(), 0.0) / count;
  const auto near = std::ranges::count_if(amounts, [&](std::int64_t amount) {
    return std::abs(static_cast<double>(amount) - mean) <= band * mean;
  });
  return static_cast<double>(near) / count;
}

TEST(ControllerSimulationTest, SettlesWhereTheTargetMassIsKeptFromAnyStart) {
  for (const std::int64_t start : {8, 32, 64, 200, 512}) {
    PlantOptions options;
    options.pairs_wanted.assign(5, 25);  // rest is not enough for the target
    options.capacity = 40'000;
    Policy policy = Operator();
    policy.adapt_shares = false;
    Simulation run(options, policy, static_cast<std::uint64_t>(start), start);
    run.Run(60 * kMinute);
    const auto late = run.Last(45 * kMinute);
    EXPECT_EQ(Least(late), Most(late)) << "started at " << start;
    EXPECT_NEAR(run.plant.Mass(run.controller.Current()), 0.9, 0.025) << "started at " << start;
    EXPECT_LE(run.Reversals(0), 2) << "started at " << start;
    EXPECT_EQ(run.plant.lost(), 0);
  }
}

TEST(ControllerSimulationTest, SettlesBelowTheMemoryLimitFromAnyStart) {
  for (const std::int64_t start : {8, 64, 200, 512}) {
    PlantOptions options;
    options.arrivals_per_second = 4;  // 40 requests at a time: rest would take 2,560 of 2,000
    options.capacity = 2000;
    options.pairs_wanted.assign(5, 25);
    Simulation run(options, Operator(), 100 + static_cast<std::uint64_t>(start), start);
    run.Run(120 * kMinute);
    const auto late = run.Last(90 * kMinute);
    // 50 would be all of the memory, without any variation of the load.
    EXPECT_GE(Least(late), 12) << "started at " << start;
    EXPECT_LE(Most(late), 45) << "started at " << start;
    EXPECT_GT(ShareNearMean(late, 0.25), 0.8) << "started at " << start;
    EXPECT_GT(run.MeanUsage(90 * kMinute), 0.55) << "memory is used";
    EXPECT_LT(run.MeanUsage(90 * kMinute), 0.85);
    EXPECT_LE(run.Reversals(30 * kMinute), 18) << "in 90 minutes, started at " << start;
  }
}

TEST(ControllerSimulationTest, WithRoomAndMassEnoughItStaysAtRest) {
  PlantOptions options;
  options.pairs_wanted.assign(5, 3);
  options.capacity = 20'000;
  Simulation run(options, Operator(), 200);
  run.Run(30 * kMinute);
  EXPECT_TRUE(run.steps.empty());
}

TEST(ControllerSimulationTest, GivesWayToABurstAndRecovers) {
  PlantOptions options;
  options.capacity = 4000;  // 20 requests at a time: rest takes a third
  options.batch = 256;
  options.pairs_wanted.assign(5, 8);
  Simulation run(options, Operator(), 300);
  run.Run(10 * kMinute);
  EXPECT_EQ(run.amounts.back(), 64);
  run.plant.options.arrivals_per_second = 10;
  run.Run(10 * kMinute);
  EXPECT_LT(run.amounts.back(), 45);
  EXPECT_LT(run.MeanUsage(5 * kMinute), 0.9);
  EXPECT_GE(Least(run.Last(10 * kMinute)), 8);
  run.plant.options.arrivals_per_second = 2;
  run.Run(20 * kMinute);
  const auto late = run.Last(8 * kMinute);
  EXPECT_EQ(Least(late), 64);
  EXPECT_EQ(Most(late), 64);
}

TEST(ControllerSimulationTest, QueueingThatPairsDoNotCureCostsHalfOfThemAtMost) {
  PlantOptions options;
  options.batch = 10;  // 2 a second for 10 s each: twice too many
  options.capacity = 40'000;
  Simulation run(options, Operator(), 400);
  run.Run(30 * kMinute);
  EXPECT_EQ(run.amounts.back(), 32);
  EXPECT_EQ(Least(run.amounts), 32);
  run.plant.options.arrivals_per_second = 0.3;
  run.Run(60 * kMinute);
  EXPECT_EQ(run.amounts.back(), 64);
}

TEST(ControllerSimulationTest, ASilentCacheManagersLastWordDoesNotHoldTheAmountDown) {
  PlantOptions options;
  options.arrivals_per_second = 10;
  options.capacity = 4000;
  Simulation run(options, Operator(), 500);
  run.Run(15 * kMinute);
  ASSERT_LT(run.amounts.back(), 45);
  run.plant.cache_silent = true;
  run.plant.options.arrivals_per_second = 1;
  run.Run(15 * kMinute);
  EXPECT_EQ(run.amounts.back(), 64) << "back to rest, not beyond";
  // It comes back under the old load.
  run.plant.cache_silent = false;
  run.plant.options.arrivals_per_second = 10;
  run.Run(15 * kMinute);
  EXPECT_LT(run.amounts.back(), 45);
}

TEST(ControllerSimulationTest, GrowthEndsWhenItsWitnessesAreSilent) {
  PlantOptions options;
  options.pairs_wanted.assign(5, 25);
  options.capacity = 40'000;
  for (const bool prefill : {true, false}) {
    Simulation run(options, Operator(), 600);
    run.Run(20 * kMinute);
    ASSERT_GT(run.amounts.back(), 80);
    (prefill ? run.plant.prefill_silent : run.plant.cache_silent) = true;
    run.Run(20 * kMinute);
    EXPECT_EQ(run.amounts.back(), 64) << "prefill: " << prefill;
    run.plant.prefill_silent = run.plant.cache_silent = false;
    run.Run(20 * kMinute);
    EXPECT_GT(run.amounts.back(), 80);
  }
}

TEST(ControllerSimulationTest, WithEveryReporterSilentItRests) {
  PlantOptions options;
  options.pairs_wanted.assign(5, 25);
  Simulation run(options, Operator(), 700, 300);
  run.plant.prefill_silent = run.plant.decode_silent = run.plant.cache_silent = true;
  run.Run(20 * kMinute);
  EXPECT_EQ(run.amounts.back(), 64);
  EXPECT_EQ(run.Reversals(0), 0);
}

TEST(ControllerSimulationTest, ReportersThatComeAndGoDoNotMakeItOscillate) {
  PlantOptions options;
  options.arrivals_per_second = 4;
  options.capacity = 2000;
  options.pairs_wanted.assign(5, 25);
  Simulation run(options, Operator(), 800);
  for (int minute = 0; minute < 120; ++minute) {
    run.plant.cache_silent = minute % 7 == 3;
    run.plant.prefill_silent = minute % 5 == 2;
    run.plant.decode_silent = minute % 3 == 1;
    run.Run(kMinute);
  }
  EXPECT_LE(run.Reversals(30 * kMinute), 26);
  EXPECT_GE(Least(run.amounts), 8);
  EXPECT_LE(Most(run.amounts), 128);
}

TEST(ControllerSimulationTest, UnderACoverageTargetTheMostPairsFollowMemory) {
  PlantOptions options;
  options.arrivals_per_second = 4;
  options.capacity = 8000;  // for 200 pairs each
  Policy policy = Operator();
  policy.coverage = 0.95;
  Simulation run(options, policy, 900);
  run.Run(60 * kMinute);
  EXPECT_LT(run.amounts.back(), 220);
  EXPECT_GT(run.amounts.back(), 90);
  run.plant.options.arrivals_per_second = 0.5;
  run.Run(30 * kMinute);
  EXPECT_EQ(run.amounts.back(), 512);
}

TEST(ControllerSimulationTest, SharesEvenOutTheLossAndSettle) {
  PlantOptions options;
  options.importance = {0.3, 0.2, 0.2, 0.2, 0.3};
  options.pairs_wanted = {20, 10, 40, 10,
                          40};  // the third layer needs more than its importance says
  options.capacity = 40'000;
  Policy policy = Operator();
  policy.adapt_budget = false;
  Simulation run(options, policy, 1000);
  const auto spread = [&] {
    const auto mass = run.plant.LayerMass(run.controller.Current());
    return *std::ranges::max_element(mass) - *std::ranges::min_element(mass);
  };
  const double spread_before = spread();
  const double mass_before = run.plant.Mass(run.controller.Current());
  run.Run(3 * 60 * kMinute);
  EXPECT_LT(spread(), 0.6 * spread_before);
  EXPECT_GT(run.plant.Mass(run.controller.Current()), mass_before - 0.01) << "not at others' cost";
  ASSERT_FALSE(run.share_changes.empty());
  EXPECT_LT(run.share_changes.back(), 60 * kMinute) << "then it rests";
  EXPECT_LT(run.share_changes.size(), 60U);
  const Plan& plan = run.controller.Current();
  ASSERT_EQ(plan.head_rates.size(), 10U);
  EXPECT_GT(plan.head_rates[0], plan.head_rates[1]);
}

TEST(ControllerSimulationTest, AmountAndSharesSettleTogether) {
  PlantOptions options;
  options.pairs_wanted = {40, 10, 40, 10, 40};
  options.capacity = 40'000;
  Simulation run(options, Operator(), 1100);
  run.Run(3 * 60 * kMinute);
  const auto late = run.Last(60 * kMinute);
  EXPECT_EQ(Least(late), Most(late));
  EXPECT_LT(run.share_changes.back(), 120 * kMinute);
  EXPECT_NEAR(run.plant.Mass(run.controller.Current()), 0.9, 0.025);
}

}  // namespace
}  // namespace maskkv::budget
