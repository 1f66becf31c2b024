// SPDX-License-Identifier: Apache-2.0
//
// Whose turn it is, among threads: in numbers of tiles and steps, never in time.
#include "core/schedule/compute_turns.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/seed.h"

namespace maskkv::schedule {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;

void UntilWaiting(const ComputeTurns& turns, Side side, std::int64_t waiters) {
  while (turns.waiting(side) != waiters) std::this_thread::yield();
}

class ComputeTurnsTest : public ::testing::Test {
 protected:
  // A thread that takes one turn and says so in log_, which only whose turn it is writes.
  std::thread One(ComputeTurns& turns, Side side, const char* name) {
    return std::thread([this, &turns, side, name] {
      const ScopedTurn turn(&turns, side);
      EXPECT_TRUE(turn.wait().waited);
      EXPECT_FALSE(turn.wait().missed);
      log_.emplace_back(name);
    });
  }

  ManualClock clock_;
  std::vector<std::string> log_;
};

TEST_F(ComputeTurnsTest, NobodyWaitsWhileTheCoresAreFree) {
  ComputeTurns turns(0, clock_);
  for (const Side side : {Side::kStep, Side::kStep, Side::kTile, Side::kTile, Side::kStep}) {
    EXPECT_FALSE(turns.Begin(side).waited);
    turns.CheckInvariants();
    if (side == Side::kTile) {
      EXPECT_FALSE(turns.GiveWay().waited);
    }
    turns.End(side);
    turns.CheckInvariants();
  }
  const ScopedTurn none(nullptr, Side::kStep);
  EXPECT_FALSE(none.wait().waited);
}

TEST_F(ComputeTurnsTest, AStepThatAsksWaitsForTheTileThatRunsAlone) {
  ComputeTurns turns(0, clock_);
  turns.Begin(Side::kTile);
  log_.emplace_back("tile 1");
  std::thread step = One(turns, Side::kStep, "step");
  UntilWaiting(turns, Side::kStep, 1);
  const TurnWait wait = turns.GiveWay();
  EXPECT_TRUE(wait.waited);
  log_.emplace_back("tile 2");
  EXPECT_FALSE(turns.GiveWay().waited) << "no step waits any more";
  turns.End(Side::kTile);
  step.join();
  EXPECT_THAT(log_, ElementsAre("tile 1", "step", "tile 2"));
}

TEST_F(ComputeTurnsTest, AfterEachStepAPrefillThatWaitsGetsOneTile) {
  ComputeTurns turns(0, clock_);
  turns.Begin(Side::kStep);
  std::thread first = One(turns, Side::kStep, "step 1");
  UntilWaiting(turns, Side::kStep, 1);
  std::thread second = One(turns, Side::kStep, "step 2");
  UntilWaiting(turns, Side::kStep, 2);
  std::thread prefill([&] {
    turns.Begin(Side::kTile);
    log_.emplace_back("tile 1");
    turns.GiveWay();
    log_.emplace_back("tile 2");
    turns.End(Side::kTile);
  });
  UntilWaiting(turns, Side::kTile, 1);
  turns.CheckInvariants();
  turns.End(Side::kStep);
  first.join();
  second.join();
  prefill.join();
  EXPECT_THAT(log_, ElementsAre("tile 1", "step 1", "tile 2", "step 2"));
}

TEST_F(ComputeTurnsTest, TilesGoOnUntilTheirShareOfTheLastStepIsOver) {
  ComputeTurns turns(0.5, clock_);
  turns.Begin(Side::kStep);
  clock_.Advance(milliseconds(10));
  turns.End(Side::kStep);
  turns.Begin(Side::kTile);
  std::thread step([&] {
    const TurnWait wait = turns.Begin(Side::kStep);
    EXPECT_EQ(wait.time, milliseconds(5));
    log_.emplace_back("step");
    turns.End(Side::kStep);  // it took no time: nothing is left for tiles but one
  });
  UntilWaiting(turns, Side::kStep, 1);
  clock_.Advance(milliseconds(4));
  EXPECT_FALSE(turns.GiveWay().waited);
  log_.emplace_back("tile");
  clock_.Advance(milliseconds(1));
  EXPECT_TRUE(turns.GiveWay().waited);
  step.join();
  turns.End(Side::kTile);
  EXPECT_THAT(log_, ElementsAre("tile", "step"));
}

// Each thread checks what the turns promise to it; counts are written by whoever has the turn.
TEST_F(ComputeTurnsTest, ManyThreadsKeepThePromises) {
  constexpr int kThreadsASide = 3, kTurns = 400;
  ComputeTurns turns(0, clock_);
  std::int64_t steps = 0, tiles = 0;
  std::atomic<int> inside = 0;
  const auto compute = [&](std::int64_t& count, std::mt19937_64& random) {
    EXPECT_EQ(inside.fetch_add(1), 0);
    ++count;
    if (random() % 4 == 0) turns.CheckInvariants();
    if (random() % 8 == 0) std::this_thread::yield();
    EXPECT_EQ(inside.fetch_sub(1), 1);
  };
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreadsASide; ++thread) {
    threads.emplace_back([&, thread] {
      std::mt19937_64 random(testing::Seed() + static_cast<std::uint64_t>(thread));
      std::int64_t owed_after = -1;  // tiles when a turn ended while one waited
      for (int i = 0; i < kTurns; ++i) {
        turns.Begin(Side::kStep);
        EXPECT_GT(tiles, owed_after) << "a tile that waits comes after each step";
        compute(steps, random);
        owed_after = turns.waiting(Side::kTile) > 0 ? tiles : -1;
        turns.End(Side::kStep);
        if (random() % 3 == 0) std::this_thread::yield();
      }
    });
    threads.emplace_back([&, thread] {
      std::mt19937_64 random(testing::Seed() + static_cast<std::uint64_t>(100 + thread));
      for (int left = kTurns; left > 0;) {
        turns.Begin(Side::kTile);
        for (auto run = static_cast<int>(1 + random() % 20); run > 0 && left > 0; --run, --left) {
          compute(tiles, random);
          if (run == 1 || left == 1) continue;  // the last one: its turn ends
          const bool step_waits = turns.waiting(Side::kStep) > 0;
          const std::int64_t steps_before = steps;
          turns.GiveWay();
          if (step_waits) {
            EXPECT_GT(steps, steps_before) << "a step waits for one tile";
          }
        }
        turns.End(Side::kTile);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(steps, kThreadsASide * kTurns);
  EXPECT_EQ(tiles, kThreadsASide * kTurns);
  turns.CheckInvariants();
}

}  // namespace
}  // namespace maskkv::schedule
