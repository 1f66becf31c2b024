// SPDX-License-Identifier: Apache-2.0
#include "services/prefill/joined_runs.h"

#include <gtest/gtest.h>

#include <atomic>
#include <latch>
#include <thread>
#include <vector>

#include "maskkv/v1/prefill.pb.h"
#include "tests/support/status_matchers.h"

namespace maskkv::prefill {
namespace {

Answer AnswerOf(std::int64_t value) {
  auto answer = std::make_shared<v1::PrefillResponse>();
  answer->set_prompt_tokens(value);
  return answer;
}

JoinedRuns::Caller CallerOf(std::function<absl::StatusOr<Answer>()> run) {
  return {.tenant = "t",
          .request_id = "1",
          .digest = {},
          .alive = [] { return absl::OkStatus(); },
          .run = std::move(run),
          .still_good = [](const Answer&) { return true; },
          .on_waiting = [](bool) {}};
}

TEST(JoinedRunsTest, CallersOfOneIdShareOneRun) {
  SteadyClock clock;
  JoinedRuns runs({}, clock);
  constexpr int kCallers = 8;
  std::latch joined(kCallers - 1);
  std::atomic<int> ran = 0, own = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < kCallers; ++i) {
    threads.emplace_back([&] {
      JoinedRuns::Caller caller = CallerOf([&]() -> absl::StatusOr<Answer> {
        ++ran;
        joined.wait();  // until all others wait for this run
        return AnswerOf(7);
      });
      caller.on_waiting = [&](bool begins) {
        if (begins) joined.count_down();
      };
      const absl::StatusOr<JoinedRuns::Outcome> outcome = runs.Do(caller);
      ASSERT_THAT(outcome, testing::IsOk());
      EXPECT_EQ(outcome->answer->prompt_tokens(), 7);
      if (outcome->own) ++own;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ran, 1);
  EXPECT_EQ(own, 1);
}

TEST(JoinedRunsTest, AWaiterTakesOverWhenTheRunnerIsCancelled) {
  SteadyClock clock;
  JoinedRuns runs({}, clock);
  std::latch running(1), waiting(1);
  std::thread first([&] {
    JoinedRuns::Caller caller = CallerOf([&]() -> absl::StatusOr<Answer> {
      running.count_down();
      waiting.wait();
      return absl::CancelledError("gone");
    });
    caller.alive = [] { return absl::CancelledError("gone"); };
    EXPECT_TRUE(absl::IsCancelled(runs.Do(caller).status()));
  });
  running.wait();
  JoinedRuns::Caller second = CallerOf([] { return AnswerOf(2); });
  second.on_waiting = [&](bool begins) {
    if (begins) waiting.count_down();
  };
  const absl::StatusOr<JoinedRuns::Outcome> outcome = runs.Do(second);
  first.join();
  ASSERT_THAT(outcome, testing::IsOk());
  EXPECT_TRUE(outcome->own);
  EXPECT_EQ(outcome->answer->prompt_tokens(), 2);
}

TEST(JoinedRunsTest, AnErrorOfTheRunReachesTheWaiterAndIsNotRemembered) {
  SteadyClock clock;
  JoinedRuns runs({}, clock);
  EXPECT_TRUE(absl::IsDataLoss(
      runs.Do(CallerOf([]() -> absl::StatusOr<Answer> { return absl::DataLossError("NaN"); }))
          .status()));
  const absl::StatusOr<JoinedRuns::Outcome> outcome = runs.Do(CallerOf([] { return AnswerOf(1); }));
  ASSERT_THAT(outcome, testing::IsOk());
  EXPECT_TRUE(outcome->own);
}

TEST(JoinedRunsTest, AWaiterThatIsCancelledLeavesTheRunAlone) {
  SteadyClock clock;
  JoinedRuns runs({}, clock);
  std::latch running(1), left(1);
  std::thread first([&] {
    const auto outcome = runs.Do(CallerOf([&]() -> absl::StatusOr<Answer> {
      running.count_down();
      left.wait();
      return AnswerOf(1);
    }));
    EXPECT_THAT(outcome, testing::IsOk());
  });
  running.wait();
  JoinedRuns::Caller second = CallerOf([] { return AnswerOf(2); });
  second.alive = [] { return absl::DeadlineExceededError("late"); };
  EXPECT_TRUE(absl::IsDeadlineExceeded(runs.Do(second).status()));
  left.count_down();
  first.join();
}

TEST(JoinedRunsTest, AnAnswerThatIsNoGoodAnyMoreIsMadeAnew) {
  SteadyClock clock;
  JoinedRuns runs({}, clock);
  std::int64_t made = 0;
  JoinedRuns::Caller caller = CallerOf([&] { return AnswerOf(++made); });
  EXPECT_TRUE(runs.Do(caller)->own);
  EXPECT_EQ(runs.Do(caller)->answer->prompt_tokens(), 1);
  caller.still_good = [](const Answer& answer) { return answer->prompt_tokens() > 1; };
  EXPECT_EQ(runs.Do(caller)->answer->prompt_tokens(), 2);
  EXPECT_EQ(runs.Do(caller)->answer->prompt_tokens(), 2);
}

TEST(JoinedRunsTest, ARunThatThrowsLeavesNobodyWaiting) {
  SteadyClock clock;
  JoinedRuns runs({}, clock);
  EXPECT_THROW((void)runs.Do(CallerOf([]() -> absl::StatusOr<Answer> { throw std::bad_alloc(); })),
               std::bad_alloc);
  EXPECT_TRUE(runs.Do(CallerOf([] { return AnswerOf(1); }))->own);
}

}  // namespace
}  // namespace maskkv::prefill
