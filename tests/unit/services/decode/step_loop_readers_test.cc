// SPDX-License-Identifier: Apache-2.0
//
// Readers of the step loop that cancel, leave, stall and come back.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "core/base/error.h"
#include "tests/support/seed.h"
#include "tests/unit/services/decode/step_loop_fixture.h"

namespace maskkv::decode {
namespace {

using std::chrono::seconds;

TEST_F(StepLoopTest, ACancelledRequestGivesItsEntryBackWithinAStep) {
  Start();
  engine::DecodeRequest request = Request(0, 200);
  request.params.ignore_eos = true;
  const std::weak_ptr<const engine::KvView> entry = request.cache;
  std::atomic<bool> cancelled{false};
  GroupSpec spec = Spec({std::move(request)});
  spec.alive = [&]() -> absl::Status {
    return cancelled ? absl::CancelledError("cancelled") : absl::OkStatus();
  };
  const std::unique_ptr<SequenceGroup> group = Submit(std::move(spec));
  Next(*group);
  cancelled = true;
  const Answer answer = ReadOne(*group);
  EXPECT_EQ(answer.end.status.code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(entry.expired());
  // What was in the queue, the step under way, one more after the look.
  EXPECT_LE(answer.trace.size(), options_.event_queue + 2);
}

TEST_F(StepLoopTest, AReaderThatLeavesGivesItsEntryBack) {
  Start();
  engine::DecodeRequest request = Request(0, 200);
  const std::weak_ptr<const engine::KvView> entry = request.cache;
  std::unique_ptr<SequenceGroup> group = Submit(std::move(request));
  Next(*group);
  group.reset();
  while (!entry.expired()) std::this_thread::yield();
}

TEST_F(StepLoopTest, AReaderThatDoesNotReadStallsOnlyItselfAndIsEnded) {
  options_.event_queue = 2;
  Start();
  engine::DecodeRequest request = Request(0, 64);
  request.params.ignore_eos = true;
  const std::weak_ptr<const engine::KvView> entry = request.cache;
  GroupSpec spec = Spec({std::move(request)});
  std::atomic<bool> abandoned{false};
  spec.abandon = [&](const absl::Status& status) {
    EXPECT_EQ(ErrorReason(status), "SLOW_READER");
    abandoned = true;
  };
  const std::unique_ptr<SequenceGroup> slow = Submit(std::move(spec));
  WaitFor([](const StepLoop::State& state) { return state.counts.stalled == 1; });
  // It holds no place and nobody waits for it.
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    EXPECT_TRUE(ReadOne(*Submit(Request(seed))).end.status.ok());
  }
  EXPECT_FALSE(entry.expired());
  clock_.Advance(options_.limits.stall_limit + seconds(1));
  while (!abandoned) std::this_thread::yield();
  EXPECT_TRUE(entry.expired());
  const Answer answer = ReadOne(*slow);
  EXPECT_EQ(answer.end.status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(answer.end.steps, 2);
}

TEST_F(StepLoopTest, AReaderThatComesBackInTimeMissesNothing) {
  options_.event_queue = 1;
  engine::DecodeRequest request = Request(2);
  const Trace alone = Alone(request);
  Start();
  const std::unique_ptr<SequenceGroup> slow = Submit(std::move(request));
  WaitFor([](const StepLoop::State& state) { return state.counts.stalled == 1; });
  const Answer answer = ReadOne(*slow);
  EXPECT_TRUE(answer.end.status.ok());
  EXPECT_EQ(answer.trace, alone);
}

TEST_F(StepLoopTest, RandomClientsThatComeGoAndSleepDoNotChangeEachOthersTokens) {
  options_.event_queue = 3;
  const std::uint64_t base = maskkv::testing::Seed();
  std::vector<engine::DecodeRequest> requests;
  std::vector<Trace> alone;
  for (std::uint64_t i = 0; i < 40; ++i) {
    requests.push_back(Request(base + i));
    alone.push_back(Alone(requests.back()));
  }
  Start();
  std::vector<std::thread> clients;
  std::atomic<int> whole{0};
  for (std::uint64_t client = 0; client < 8; ++client) {
    clients.emplace_back([&, client] {
      std::mt19937_64 random(base + client);
      for (std::size_t i = client; i < requests.size(); i += 8) {
        GroupSpec spec = Spec({requests[i]});
        spec.priority = static_cast<std::int32_t>(random() % 5);
        const std::unique_ptr<SequenceGroup> group = Submit(std::move(spec));
        Trace trace;
        bool left = false;
        while (!group->done() && !left) {
          const SequenceEvent event = Next(*group);
          if (const auto* update = std::get_if<StepUpdate>(&event.what)) {
            Record(update->step, trace);
          } else {
            EXPECT_TRUE(std::get<SequenceEnd>(event.what).status.ok());
          }
          if (random() % 4 == 0) std::this_thread::yield();
          left = random() % 64 == 0;
        }
        if (group->done()) ++whole;
        ASSERT_LE(trace.size(), alone[i].size());
        EXPECT_EQ(trace, Trace(alone[i].begin(),
                               alone[i].begin() + static_cast<std::ptrdiff_t>(trace.size())));
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_GT(whole, 20);
  WaitFor([](const StepLoop::State& state) {
    return state.counts.running + state.counts.waiting + state.counts.displaced +
               state.counts.stalled ==
           0;
  });
}

}  // namespace
}  // namespace maskkv::decode
