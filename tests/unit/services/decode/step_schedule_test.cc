// SPDX-License-Identifier: Apache-2.0
#include "services/decode/step_schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <vector>

#include "core/base/error.h"
#include "tests/support/seed.h"
#include "tests/support/status_matchers.h"

namespace maskkv::decode::step_schedule_test {
namespace {

using maskkv::testing::StatusIs;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::_;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Ids = std::vector<SequenceId>;

class StepScheduleTest : public ::testing::Test {
 protected:
  StepScheduleTest() {
    limits_.max_running = 2;
    limits_.capacity = 4;
    limits_.longest_wait = seconds(10);
    limits_.stall_limit = seconds(3);
  }

  SequenceId Join(std::int32_t priority = 0) {
    const absl::StatusOr<Ids> ids = schedule_->Join(priority, 1);
    EXPECT_TRUE(ids.ok()) << ids.status();
    return ids.ok() ? ids->front() : 0;
  }
  StepDecision Decide() {
    StepDecision decision = schedule_->Decide();
    schedule_->CheckInvariants();
    return decision;
  }
  void Make() { schedule_.emplace(limits_, clock_); }

  ManualClock clock_;
  StepLimits limits_;
  std::optional<StepSchedule> schedule_;
};

TEST_F(StepScheduleTest, SequencesStartInTheirOrderAndTheRestWaitsForAPlace) {
  Make();
  const SequenceId a = Join(), b = Join(), c = Join();
  EXPECT_THAT(Decide().start, ElementsAre(a, b));
  EXPECT_THAT(Decide().start, IsEmpty());
  EXPECT_FALSE(schedule_->Steps(c));
  schedule_->Leave(a);
  const StepDecision decision = Decide();
  EXPECT_THAT(decision.start, ElementsAre(c));
  EXPECT_THAT(decision.pause, IsEmpty());
}

TEST_F(StepScheduleTest, AllSamplesOfARequestJoinOrNone) {
  Make();
  ASSERT_TRUE(schedule_->Join(0, 3).ok());
  EXPECT_THAT(schedule_->Join(0, 2), StatusIs(absl::StatusCode::kResourceExhausted, _));
  EXPECT_EQ(schedule_->counts().waiting, 3);
  EXPECT_TRUE(schedule_->Join(0, 1).ok());
  schedule_->CheckInvariants();
}

TEST_F(StepScheduleTest, AStrictlyHigherPriorityDisplacesTheLowestWhichGoesOnLater) {
  Make();
  const SequenceId low = Join(1), middle = Join(2);
  Decide();
  const SequenceId equal = Join(1), high = Join(5);
  StepDecision decision = Decide();
  EXPECT_THAT(decision.start, ElementsAre(high));
  EXPECT_THAT(decision.pause, ElementsAre(low));
  EXPECT_EQ(schedule_->counts().displaced, 1);
  schedule_->Leave(middle);
  decision = Decide();
  EXPECT_THAT(decision.start, ElementsAre(low));
  EXPECT_THAT(decision.pause, IsEmpty());
  EXPECT_FALSE(schedule_->Steps(equal));
}

TEST_F(StepScheduleTest, AFullReaderGivesItsPlaceUpAndTakesOneAgainWhenItHasRead) {
  Make();
  const SequenceId slow = Join(), other = Join(), third = Join();
  Decide();
  schedule_->SetRoom(slow, false);
  StepDecision decision = Decide();
  EXPECT_THAT(decision.pause, ElementsAre(slow));
  EXPECT_THAT(decision.start, ElementsAre(third));
  clock_.Advance(seconds(2));
  schedule_->SetRoom(slow, true);
  EXPECT_THAT(Decide().start, IsEmpty());  // both places are taken
  schedule_->Leave(other);
  EXPECT_THAT(Decide().start, ElementsAre(slow));
}

TEST_F(StepScheduleTest, AReaderThatDoesNotReadForTheStallLimitIsEnded) {
  Make();
  const SequenceId slow = Join();
  Decide();
  schedule_->SetRoom(slow, false);
  clock_.Advance(seconds(2));
  schedule_->SetRoom(slow, true);
  schedule_->SetRoom(slow, false);
  clock_.Advance(seconds(3));
  EXPECT_THAT(Decide().stalled, IsEmpty());  // it read in between
  clock_.Advance(milliseconds(1));
  EXPECT_THAT(Decide().stalled, ElementsAre(slow));
  EXPECT_EQ(schedule_->counts().stalled, 0);
  EXPECT_EQ(ErrorReason(schedule_->StalledError()), "SLOW_READER");
}

TEST_F(StepScheduleTest, ADisplacedSequenceThatIsNotReadTakesNoPlace) {
  limits_.max_running = 1;
  Make();
  const SequenceId slow = Join(0);
  Decide();
  const SequenceId high = Join(5);
  EXPECT_THAT(Decide().pause, ElementsAre(slow));
  schedule_->SetRoom(slow, false);
  const SequenceId next = Join(0);
  schedule_->Leave(high);
  EXPECT_THAT(Decide().start, ElementsAre(next));
  EXPECT_EQ(schedule_->counts().stalled, 1);
}

TEST_F(StepScheduleTest, WaitingTooLongEndsASequence) {
  limits_.max_running = 1;
  Make();
  const SequenceId first = Join();
  const SequenceId second = Join();
  Decide();
  clock_.Advance(seconds(11));
  EXPECT_THAT(Decide().timed_out, ElementsAre(second));
  EXPECT_TRUE(schedule_->Steps(first));
  EXPECT_EQ(ErrorReason(schedule_->TimedOutError()), "QUEUE_TIMEOUT");
}

TEST_F(StepScheduleTest, RandomTrafficKeepsEveryPlaceBusyAndEveryPromise) {
  std::mt19937_64 random(maskkv::testing::Seed());
  limits_.max_running = 3;
  limits_.capacity = 8;
  Make();
  std::map<SequenceId, std::optional<TimePoint>> full;  // of all that are here
  std::set<SequenceId> stepping;
  std::int64_t displaced = 0, timed_out = 0, stalled = 0;
  const auto any = [&](std::uint64_t draw) {
    return std::next(full.begin(), static_cast<std::ptrdiff_t>(draw % full.size()))->first;
  };
  for (int i = 0; i < 100'000; ++i) {
    switch (random() % 8) {
      case 0: {
        const auto priority = static_cast<std::int32_t>(random() % 3) * 40;
        const auto count = static_cast<std::int64_t>(1 + random() % 3);
        const absl::StatusOr<Ids> ids = schedule_->Join(priority, count);
        if (!ids.ok()) break;
        for (const SequenceId id : *ids) full[id] = std::nullopt;
        break;
      }
      case 1:
        if (full.empty()) break;
        if (const SequenceId id = any(random()); random() % 3 == 0) {
          schedule_->Leave(id);
          full.erase(id);
          stepping.erase(id);
        }
        break;
      case 2:
      case 3:
        if (full.empty()) break;
        if (const SequenceId id = any(random()); full[id]) {
          schedule_->SetRoom(id, true);
          full[id].reset();
        } else if (stepping.contains(id)) {
          schedule_->SetRoom(id, false);
          full[id] = clock_.Now();
        }
        break;
      case 4:
        clock_.Advance(milliseconds(random() % 1500));
        break;
      default:
        break;
    }
    const StepDecision decision = Decide();
    for (const SequenceId id : decision.stalled) {
      ASSERT_TRUE(full.at(id) && clock_.Now() - *full.at(id) > limits_.stall_limit);
      full.erase(id);
      stepping.erase(id);
      ++stalled;
    }
    for (const SequenceId id : decision.timed_out) {
      ASSERT_FALSE(stepping.contains(id));
      full.erase(id);
      ++timed_out;
    }
    for (const SequenceId id : decision.pause) {
      ASSERT_EQ(stepping.erase(id), 1U);
      if (!full.at(id)) ++displaced;
    }
    for (const SequenceId id : decision.start) {
      ASSERT_TRUE(stepping.insert(id).second);
    }
    std::int64_t ready = 0;
    for (const auto& [id, since] : full) {
      ASSERT_EQ(schedule_->Steps(id), stepping.contains(id));
      ASSERT_FALSE(since && stepping.contains(id)) << "steps without room";
      ASSERT_FALSE(since && clock_.Now() - *since > limits_.stall_limit);
      ready += since ? 0 : 1;
    }
    ASSERT_EQ(static_cast<std::int64_t>(stepping.size()), std::min(ready, limits_.max_running));
  }
  EXPECT_GT(displaced, 100);
  EXPECT_GT(timed_out, 100);
  EXPECT_GT(stalled, 100);
}

}  // namespace
}  // namespace maskkv::decode::step_schedule_test
