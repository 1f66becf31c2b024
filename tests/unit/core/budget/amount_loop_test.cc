// SPDX-License-Identifier: Apache-2.0
#include "core/budget/amount_loop.h"

#include <chrono>
#include <optional>
#include <vector>

#include "gtest/gtest.h"

namespace maskkv::budget {
namespace {

using std::chrono::seconds;

constexpr TimePoint At(int second) { return TimePoint(seconds(second)); }

Policy Limits() {
  Policy policy;
  policy.budget = 64;
  policy.min_budget = 16;
  policy.max_budget = 512;
  policy.target_mass = 0.9;
  return policy;
}

LoopInput Calm(std::optional<double> mass = std::nullopt) {
  return {.memory = 0.1, .memory_fresh = true, .queue = 0, .prefill_heard = true, .mass = mass};
}

LoopInput Memory(double memory) {
  LoopInput input = Calm();
  input.memory = memory;
  return input;
}

// The first step from `amount`, or `amount`.
std::int64_t First(std::int64_t amount, const LoopInput& input, const Policy& policy = Limits()) {
  AmountLoop loop{Tuning{}};
  const auto step = loop.Next(amount, policy, input, At(0));
  return step ? step->amount : amount;
}

TEST(AmountLoopTest, RestsWithoutSignals) { EXPECT_EQ(First(64, LoopInput{}), 64); }

TEST(AmountLoopTest, MemoryPressurePushesDownInProportionWithinTheBound) {
  EXPECT_EQ(First(100, Memory(0.86)), 92);  // (0.725 / 0.86) ^ 0.5
  EXPECT_EQ(First(100, Memory(1.5)), 80);
  EXPECT_EQ(First(100, Memory(0.80)), 100);  // between the bands
}

TEST(AmountLoopTest, QueueingPushesDown) {
  LoopInput input = Calm();
  input.queue = 3;
  AmountLoop loop{Tuning{}};
  const auto step = loop.Next(100, Limits(), input, At(0));
  ASSERT_TRUE(step.has_value());
  EXPECT_EQ(step->amount, 80);
  EXPECT_EQ(step->cause, "queue");
  EXPECT_EQ(First(34, input), 32) << "waiting costs half of the operator's amount at most";
  EXPECT_EQ(First(32, input), 32);
  input.memory = 0.9;
  EXPECT_EQ(First(32, input), 29);
}

TEST(AmountLoopTest, LostMassPushesUpWhenMemoryAndQueueAllow) {
  EXPECT_EQ(First(64, Calm(0.7)), 80);
  EXPECT_EQ(First(64, Calm(0.87)), 68);  // a smaller gap, a smaller step
  EXPECT_EQ(First(64, Calm(0.89)), 64);  // within the band
  LoopInput full = Calm(0.7);
  full.memory = 0.65;
  EXPECT_EQ(First(64, full), 64);
  LoopInput waiting = Calm(0.7);
  waiting.queue = 0.6;
  EXPECT_EQ(First(64, waiting), 64);
  LoopInput unknown = Calm(0.7);
  unknown.memory = 0;
  unknown.memory_fresh = false;
  EXPECT_EQ(First(64, unknown), 64) << "no growth past rest into memory that nobody reports";
}

TEST(AmountLoopTest, GrowthSlowsDownOnItsWayToTheBand) {
  LoopInput input = Calm(0.5);
  input.memory = 0.59;
  EXPECT_EQ(First(64, input), 67);  // (0.725 / 0.59) ^ 0.25, not 1.25
}

TEST(AmountLoopTest, ReturnsToRestFromBelowWhenCalmAndFromAboveWhenNotNeeded) {
  EXPECT_EQ(First(20, Calm()), 25);
  EXPECT_EQ(First(60, Calm()), 64);
  EXPECT_EQ(First(20, LoopInput{}), 25);
  EXPECT_EQ(First(100, Calm(0.95)), 80);
  EXPECT_EQ(First(100, Calm(0.91)), 100);
  EXPECT_EQ(First(100, Calm()), 100) << "kept mass is still being gathered";
  LoopInput silent = Calm();
  silent.prefill_heard = false;
  EXPECT_EQ(First(70, silent), 64);
}

TEST(AmountLoopTest, KeepsTheOperatorsLimits) {
  EXPECT_EQ(First(17, Memory(2)), 16);
  EXPECT_EQ(First(16, Memory(2)), 16);
  EXPECT_EQ(First(500, Calm(0.1)), 512);
  EXPECT_EQ(First(512, Calm(0.1)), 512);
  Policy fixed = Limits();
  fixed.min_budget = fixed.max_budget = fixed.budget;
  EXPECT_EQ(First(64, Memory(2), fixed), 64);
}

TEST(AmountLoopTest, SmallAmountsMoveByOnePair) {
  Policy policy = Limits();
  policy.budget = 2;
  policy.min_budget = 1;
  EXPECT_EQ(First(2, Calm(0.5), policy), 3);
  EXPECT_EQ(First(2, Memory(0.9), policy), 1);
}

TEST(AmountLoopTest, UnderACoveragePolicyRestIsTheMostPairs) {
  Policy policy = Limits();
  policy.coverage = 0.95;
  EXPECT_EQ(AmountAtRest(policy), 512);
  EXPECT_EQ(First(400, Calm(), policy), 500);
  EXPECT_EQ(First(512, Memory(0.9), policy), 460);
}

TEST(AmountLoopTest, OneStepAnInterval) {
  AmountLoop loop{Tuning{}};
  ASSERT_TRUE(loop.Next(100, Limits(), Memory(2), At(0)).has_value());
  EXPECT_FALSE(loop.Next(80, Limits(), Memory(2), At(9)).has_value());
  EXPECT_TRUE(loop.Next(80, Limits(), Memory(2), At(10)).has_value());
}

TEST(AmountLoopTest, ReversalsWaitLongerEachTimeExceptUnderPressure) {
  AmountLoop loop{Tuning{}};
  std::vector<int> rises;
  std::int64_t amount = 64;
  // A plant that is pressed whenever the amount is at rest and calm whenever it is below.
  for (int t = 0; t < 3600; ++t) {
    const auto step = loop.Next(amount, Limits(), amount >= 64 ? Memory(0.9) : Calm(), At(t));
    if (!step) continue;
    if (step->amount > amount) rises.push_back(t);
    if (step->amount < amount && !rises.empty()) {
      EXPECT_EQ(t - rises.back(), 10) << "pressure does not wait";
    }
    amount = step->amount;
    loop.CheckInvariants();
  }
  ASSERT_GE(rises.size(), 3U);
  EXPECT_LE(rises.size(), 12U);
  EXPECT_EQ(rises[0], 30);
  EXPECT_GE(rises.back() - rises[rises.size() - 2], 480);
}

TEST(AmountLoopTest, PatienceIsForgottenAfterQuiet) {
  AmountLoop loop{Tuning{}};
  ASSERT_TRUE(loop.Next(64, Limits(), Memory(0.9), At(0)).has_value());
  ASSERT_TRUE(loop.Next(60, Limits(), Calm(), At(30)).has_value());
  ASSERT_TRUE(loop.Next(64, Limits(), Memory(0.9), At(40)).has_value());
  EXPECT_FALSE(loop.Next(60, Limits(), Calm(), At(159)).has_value());
  ASSERT_TRUE(loop.Next(64, Limits(), Memory(0.9), At(1000)).has_value());
  EXPECT_TRUE(loop.Next(60, Limits(), Calm(), At(1030)).has_value());
}

TEST(AmountLoopTest, ARestartForgetsTheDirection) {
  AmountLoop loop{Tuning{}};
  ASSERT_TRUE(loop.Next(64, Limits(), Memory(0.9), At(0)).has_value());
  loop.Restart(At(1));
  EXPECT_FALSE(loop.Next(60, Limits(), Calm(), At(10)).has_value());
  EXPECT_TRUE(loop.Next(60, Limits(), Calm(), At(11)).has_value());
}

}  // namespace
}  // namespace maskkv::budget
