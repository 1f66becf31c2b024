// SPDX-License-Identifier: Apache-2.0
#include "services/prefill/forward_gate.h"

#include <gtest/gtest.h>

#include <atomic>
#include <latch>
#include <optional>
#include <thread>
#include <vector>

#include "core/base/error.h"
#include "tests/support/status_matchers.h"

namespace maskkv::prefill {
namespace {

using Turn = ForwardGate::Turn;

absl::Status Alive() { return absl::OkStatus(); }

TEST(ForwardGateTest, TheFirstGoesInAtOnceAndTheNextWhenItHasGone) {
  ManualClock clock;
  ForwardGate gate({.places = 1}, clock);
  std::optional<Turn> first;
  {
    absl::StatusOr<Turn> turn = gate.Wait(0, 0, Alive);
    ASSERT_TRUE(turn.ok());
    first = *std::move(turn);
  }
  std::atomic<bool> entered = false;
  std::latch waiting(1);
  std::atomic<bool> counted = false;
  std::thread second([&] {
    const absl::StatusOr<Turn> turn = gate.Wait(0, 0, [&] {
      if (!counted.exchange(true)) waiting.count_down();
      return absl::OkStatus();
    });
    EXPECT_THAT(turn, testing::IsOk());
    entered = true;
    EXPECT_EQ(gate.running(), 1);
  });
  waiting.wait();
  EXPECT_FALSE(entered);
  EXPECT_EQ(gate.waiting(), 1);
  first.reset();
  second.join();
  EXPECT_TRUE(entered);
  EXPECT_EQ(gate.running(), 0);
}

TEST(ForwardGateTest, WhoeverIsCancelledWhileWaitingLeavesTheQueue) {
  ManualClock clock;
  ForwardGate gate({.places = 1}, clock);
  const absl::StatusOr<Turn> first = gate.Wait(0, 0, Alive);
  const absl::StatusOr<Turn> second =
      gate.Wait(0, 7, [] { return absl::CancelledError("the caller has gone"); });
  EXPECT_TRUE(absl::IsCancelled(second.status()));
  EXPECT_EQ(gate.waiting(), 0);
}

TEST(ForwardGateTest, AWaitThatIsTooLongEndsWithAReason) {
  ManualClock clock;
  ForwardGate gate({.places = 1, .longest_wait = std::chrono::seconds(5)}, clock);
  const absl::StatusOr<Turn> first = gate.Wait(0, 0, Alive);
  const absl::StatusOr<Turn> second = gate.Wait(0, 0, [&] {
    clock.Advance(std::chrono::seconds(3));
    return absl::OkStatus();
  });
  EXPECT_EQ(ErrorReason(second.status()), "QUEUE_TIMEOUT");
  EXPECT_TRUE(absl::IsDeadlineExceeded(second.status()));
}

TEST(ForwardGateTest, OneRunsAtATimeWhateverArrives) {
  SteadyClock clock;
  ForwardGate gate({.places = 1, .capacity = 64}, clock);
  std::atomic<int> inside = 0, done = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 16; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 50; ++round) {
        const absl::StatusOr<Turn> turn = gate.Wait(i % 5 - 2, 1, Alive);
        ASSERT_THAT(turn, testing::IsOk());
        EXPECT_EQ(inside.fetch_add(1), 0);
        inside.fetch_sub(1);
        ++done;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(done, 16 * 50);
  EXPECT_EQ(gate.waiting() + gate.running(), 0);
}

}  // namespace
}  // namespace maskkv::prefill
