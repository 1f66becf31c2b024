// SPDX-License-Identifier: Apache-2.0
#include "core/schedule/admission_queue.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "core/base/error.h"
#include "tests/support/seed.h"
#include "tests/support/status_matchers.h"

namespace maskkv::schedule {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Ticket MustEnter(AdmissionQueue& queue, std::int32_t priority, std::uint64_t bytes = 0) {
  const absl::StatusOr<Ticket> ticket = queue.Enter(priority, bytes);
  EXPECT_TRUE(ticket.ok()) << ticket.status();
  queue.CheckInvariants();
  return ticket.value_or(0);
}

TEST(AdmissionQueueTest, OneRunsAtATimeAndTheEarliestIsNext) {
  ManualClock clock;
  AdmissionQueue queue({.places = 1}, clock);
  const Ticket a = MustEnter(queue, 0);
  const Ticket b = MustEnter(queue, 0);
  EXPECT_EQ(queue.Admit(), a);
  EXPECT_EQ(queue.Admit(), std::nullopt);
  EXPECT_TRUE(queue.IsRunning(a));
  EXPECT_TRUE(queue.IsWaiting(b));
  queue.Leave(a);
  EXPECT_EQ(queue.Admit(), b);
  EXPECT_FALSE(queue.IsRunning(a));
}

TEST(AdmissionQueueTest, AHighPriorityOvertakesAQueueOfLowOnes) {
  ManualClock clock;
  AdmissionQueue queue({.places = 1}, clock);
  for (int i = 0; i < 20; ++i) MustEnter(queue, 0);
  clock.Advance(seconds(9));
  const Ticket high = MustEnter(queue, 10);
  EXPECT_EQ(queue.Admit(), high);
}

TEST(AdmissionQueueTest, ALowPriorityIsOvertakenForTheDifferenceInSecondsAndNoLonger) {
  ManualClock clock;
  AdmissionQueue queue({.places = 1, .longest_wait = seconds(600)}, clock);
  const Ticket low = MustEnter(queue, -100);
  // Fresh requests of the highest priority keep the only place busy.
  int overtaken = 0;
  for (;; ++overtaken) {
    const Ticket high = MustEnter(queue, 100);
    const std::optional<Ticket> next = queue.Admit();
    ASSERT_TRUE(next.has_value());
    if (*next == low) break;
    EXPECT_EQ(*next, high);
    queue.Leave(high);
    clock.Advance(milliseconds(500));
    ASSERT_LT(overtaken, 1000);
  }
  EXPECT_EQ(overtaken, 400);  // 200 s: a tie goes to the earlier arrival
}

TEST(AdmissionQueueTest, ALeaverIsNotAdmittedAndItsRoomIsFree) {
  ManualClock clock;
  AdmissionQueue queue({.places = 1, .capacity = 1, .memory_bytes = 100}, clock);
  const Ticket a = MustEnter(queue, 0, 100);
  queue.Leave(a);
  queue.Leave(a);
  EXPECT_EQ(queue.bytes(), 0U);
  const Ticket b = MustEnter(queue, 0, 100);
  EXPECT_EQ(queue.Admit(), b);
}

TEST(AdmissionQueueTest, AFullQueueRefusesWithAHint) {
  ManualClock clock;
  AdmissionQueue queue({.places = 1, .capacity = 2}, clock);
  MustEnter(queue, 0);
  EXPECT_TRUE(queue.Admit().has_value());
  MustEnter(queue, 0);
  MustEnter(queue, 0);
  clock.Advance(seconds(7));
  const absl::Status status = queue.Enter(100, 0).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ErrorReason(status), "QUEUE_FULL");
  EXPECT_EQ(RetryAfter(status), milliseconds(7000));
}

TEST(AdmissionQueueTest, MemoryIsBoundedOverWaitingAndRunning) {
  ManualClock clock;
  AdmissionQueue queue({.places = 2, .memory_bytes = 1000}, clock);
  MustEnter(queue, 0, 600);
  EXPECT_TRUE(queue.Admit().has_value());
  EXPECT_EQ(ErrorReason(queue.Enter(0, 401).status()), "QUEUE_FULL");
  MustEnter(queue, 0, 400);
  EXPECT_EQ(queue.bytes(), 1000U);
  EXPECT_EQ(ErrorReason(queue.Enter(0, 1).status()), "QUEUE_FULL");
  EXPECT_EQ(ErrorReason(queue.Enter(0, ~std::uint64_t{0}).status()), "PROMPT_TOO_LARGE");
}

TEST(AdmissionQueueTest, APriorityOutOfRangeIsRefused) {
  ManualClock clock;
  AdmissionQueue queue({}, clock);
  EXPECT_THAT(queue.Enter(101, 0),
              testing::StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("found 101")));
  EXPECT_THAT(queue.Enter(-101, 0),
              testing::StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("found -101")));
}

TEST(AdmissionQueueTest, WhoeverWaitsTooLongLeaves) {
  ManualClock clock;
  const AdmissionLimits limits{.places = 1, .longest_wait = seconds(10)};
  AdmissionQueue queue(limits, clock);
  const Ticket running = MustEnter(queue, 0);
  EXPECT_EQ(queue.Admit(), running);
  const Ticket a = MustEnter(queue, 0);
  clock.Advance(seconds(10));
  const Ticket b = MustEnter(queue, 0);
  EXPECT_THAT(queue.Expire(), IsEmpty());
  clock.Advance(milliseconds(1));
  EXPECT_THAT(queue.Expire(), ElementsAre(a));
  EXPECT_EQ(queue.LongestWait(), milliseconds(1));
  EXPECT_TRUE(queue.IsRunning(running));
  EXPECT_TRUE(queue.IsWaiting(b));
  EXPECT_EQ(ErrorReason(TooLongError(limits)), "QUEUE_TIMEOUT");
}

TEST(AdmissionQueueTest, ADisplacedTicketMakesWayAndComesBack) {
  ManualClock clock;
  AdmissionQueue queue({.places = 2}, clock);
  const Ticket low = MustEnter(queue, 0);
  const Ticket middle = MustEnter(queue, 5);
  EXPECT_EQ(queue.Displaceable(100), std::nullopt);  // places are free
  queue.Admit();
  queue.Admit();
  clock.Advance(seconds(30));  // running is not waiting
  EXPECT_EQ(queue.Displaceable(0), std::nullopt);
  EXPECT_EQ(queue.Displaceable(1), low);
  const Ticket high = MustEnter(queue, 7);
  queue.Suspend(low);
  queue.CheckInvariants();
  EXPECT_EQ(queue.Admit(), high);
  EXPECT_EQ(queue.Displaceable(6), middle);
  queue.Leave(high);
  EXPECT_EQ(queue.Admit(), low);
  queue.CheckInvariants();
}

TEST(AdmissionQueueTest, AParkedTicketNeitherWaitsNorRunsUntilItIsUnparked) {
  ManualClock clock;
  AdmissionQueue queue({.places = 1, .longest_wait = seconds(5)}, clock);
  const Ticket parked = MustEnter(queue, 0);
  EXPECT_EQ(queue.Admit(), parked);
  queue.Park(parked);
  queue.CheckInvariants();
  EXPECT_FALSE(queue.IsRunning(parked));
  EXPECT_FALSE(queue.IsWaiting(parked));
  clock.Advance(seconds(60));
  EXPECT_THAT(queue.Expire(), IsEmpty());
  const Ticket next = MustEnter(queue, 0);
  EXPECT_EQ(queue.Admit(), next);
  queue.Unpark(parked);
  queue.CheckInvariants();
  EXPECT_EQ(queue.Admit(), std::nullopt);
  queue.Leave(next);
  EXPECT_EQ(queue.Admit(), parked);
  queue.Park(parked);
  queue.Leave(parked);
  queue.CheckInvariants();
  EXPECT_EQ(queue.running() + queue.waiting(), 0);
}

TEST(AdmissionQueueTest, WhoWaitedLongIsNotDisplacedByAFreshArrival) {
  ManualClock clock;
  AdmissionQueue queue({.places = 1}, clock);
  const Ticket low = MustEnter(queue, 0);
  clock.Advance(seconds(20));
  EXPECT_EQ(queue.Admit(), low);
  EXPECT_EQ(queue.Displaceable(20), std::nullopt);
  EXPECT_EQ(queue.Displaceable(21), low);
}

// The same rules over a plain list, with every question answered by looking at all of it.
class NaiveQueue {
 public:
  NaiveQueue(const AdmissionLimits& limits, const Clock& clock) : limits_(limits), clock_(clock) {}

  bool Enter(Ticket ticket, std::int32_t priority, std::uint64_t bytes) {
    if (Waiting() >= limits_.capacity || Bytes() + bytes > limits_.memory_bytes) return false;
    items_[ticket] = {priority, bytes, clock_.Now(), clock_.Now(), {}, false};
    return true;
  }
  std::optional<Ticket> Admit() {
    if (Running() >= limits_.places) return std::nullopt;
    std::optional<Ticket> best;
    for (const auto& [ticket, item] : items_) {
      if (!item.running && (!best || Before(item, items_.at(*best)))) best = ticket;
    }
    if (best) {
      Item& item = items_.at(*best);
      item.running = true;
      item.waited = clock_.Now() - item.arrival;
    }
    return best;
  }
  void Leave(Ticket ticket) { items_.erase(ticket); }
  std::vector<Ticket> Expire() {
    std::vector<Ticket> expired;
    for (const auto& [ticket, item] : items_) {
      if (!item.running && clock_.Now() - item.since > limits_.longest_wait) {
        expired.push_back(ticket);
      }
    }
    for (const Ticket ticket : expired) items_.erase(ticket);
    return expired;
  }
  void Suspend(Ticket ticket) {
    Item& item = items_.at(ticket);
    item.running = false;
    item.arrival = clock_.Now() - item.waited;
    item.since = clock_.Now();
  }
  std::optional<Ticket> Displaceable(std::int32_t priority) const {
    if (Running() < limits_.places) return std::nullopt;
    std::optional<Ticket> last;
    double lowest = priority;
    for (const auto& [ticket, item] : items_) {
      if (!item.running) continue;
      const double now = item.priority + Seconds(item.waited);
      // Among equals the one that has waited less, then the later ticket.
      if (now < lowest || (last && now == lowest && item.waited <= items_.at(*last).waited)) {
        lowest = now;
        last = ticket;
      }
    }
    return last;
  }
  std::int64_t Waiting() const { return static_cast<std::int64_t>(items_.size()) - Running(); }
  std::int64_t Running() const {
    return std::count_if(items_.begin(), items_.end(),
                         [](const auto& item) { return item.second.running; });
  }
  std::uint64_t Bytes() const {
    std::uint64_t bytes = 0;
    for (const auto& [ticket, item] : items_) bytes += item.bytes;
    return bytes;
  }
  Duration LongestWait() const {
    Duration longest{};
    for (const auto& [ticket, item] : items_) {
      if (!item.running) longest = std::max(longest, clock_.Now() - item.since);
    }
    return longest;
  }
  // A ticket of those that run or wait; 0 if there is none.
  Ticket Any(std::mt19937_64& random, bool running) const {
    std::vector<Ticket> tickets;
    for (const auto& [ticket, item] : items_) {
      if (item.running == running) tickets.push_back(ticket);
    }
    return tickets.empty() ? 0 : tickets[random() % tickets.size()];
  }

 private:
  struct Item {
    std::int32_t priority;
    std::uint64_t bytes;
    TimePoint arrival, since;
    Duration waited;
    bool running;
  };
  static double Seconds(Duration duration) {
    return std::chrono::duration<double>(duration).count();
  }
  bool Before(const Item& a, const Item& b) const {
    const double effective_a = a.priority + Seconds(clock_.Now() - a.arrival);
    const double effective_b = b.priority + Seconds(clock_.Now() - b.arrival);
    return effective_a != effective_b ? effective_a > effective_b : a.arrival < b.arrival;
  }

  const AdmissionLimits limits_;
  const Clock& clock_;
  std::map<Ticket, Item> items_;
};

TEST(AdmissionQueueTest, BehavesAsAPlainListOverRandomOperations) {
  std::mt19937_64 random(testing::Seed());
  ManualClock clock;
  // Steps of an eighth of a second are exact as doubles.
  const AdmissionLimits limits{
      .places = 3, .capacity = 12, .memory_bytes = 4000, .longest_wait = seconds(20)};
  AdmissionQueue queue(limits, clock);
  NaiveQueue naive(limits, clock);
  std::int64_t refused = 0, expired = 0, displaced = 0;
  for (int i = 0; i < 100'000; ++i) {
    const auto priority = static_cast<std::int32_t>(random() % 41) - 20;
    switch (random() % 8) {
      case 0:
      case 1:
      case 2: {
        const std::uint64_t bytes = random() % 500;
        const absl::StatusOr<Ticket> ticket = queue.Enter(priority, bytes);
        if (ticket.ok()) {
          ASSERT_TRUE(naive.Enter(*ticket, priority, bytes));
        } else {
          ASSERT_EQ(ErrorReason(ticket.status()), "QUEUE_FULL");
          ASSERT_FALSE(naive.Enter(0, priority, bytes));
          ++refused;
        }
        break;
      }
      case 3:
        ASSERT_EQ(queue.Admit(), naive.Admit());
        break;
      case 4: {
        const Ticket ticket = naive.Any(random, random() % 8 != 0);
        queue.Leave(ticket);
        naive.Leave(ticket);
        break;
      }
      case 5: {
        std::vector<Ticket> gone = queue.Expire();
        std::sort(gone.begin(), gone.end());
        ASSERT_EQ(gone, naive.Expire());
        expired += static_cast<std::int64_t>(gone.size());
        break;
      }
      case 6: {
        const std::optional<Ticket> victim = queue.Displaceable(priority);
        ASSERT_EQ(victim, naive.Displaceable(priority));
        if (victim) {
          queue.Suspend(*victim);
          naive.Suspend(*victim);
          ++displaced;
        }
        break;
      }
      default:
        clock.Advance(milliseconds(125) * static_cast<int>(random() % 16));
    }
    ASSERT_EQ(queue.waiting(), naive.Waiting());
    ASSERT_EQ(queue.running(), naive.Running());
    ASSERT_EQ(queue.bytes(), naive.Bytes());
    ASSERT_EQ(queue.LongestWait(), naive.LongestWait());
    queue.CheckInvariants();
  }
  EXPECT_GT(refused, 100);
  EXPECT_GT(expired, 100);
  EXPECT_GT(displaced, 100);
}

}  // namespace
}  // namespace maskkv::schedule
