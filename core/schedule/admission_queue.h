// SPDX-License-Identifier: Apache-2.0
//
// Who may run next: a bounded queue with priorities that age, in front of a fixed number of places.
// Prefill has one place (the forward), decode as many as a batch holds. A plain class: it decides,
// the caller waits. Not thread safe; the clock is injected.
//
// Order: effective priority = priority + waited seconds * kAging, higher first; ties to the earlier
// arrival. So a high priority overtakes a queue of low ones, and a low one overtakes every fresh
// high one after (difference / kAging) seconds: nobody starves. Time spent running is no waiting.
//
// Invariants: running() <= places; waiting() <= capacity, but for suspended tickets; every ticket
// is in exactly one of waiting, running, parked, gone; bytes() is the sum over all but the gone.
#ifndef MASKKV_CORE_SCHEDULE_ADMISSION_QUEUE_H_
#define MASKKV_CORE_SCHEDULE_ADMISSION_QUEUE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/clock.h"

namespace maskkv::schedule {

// Never 0, never given twice.
using Ticket = std::uint64_t;

struct AdmissionLimits {
  std::int64_t places = 1;         // running at once
  std::int64_t capacity = 64;      // waiting at once, >= 1: every ticket waits before it runs
  std::uint64_t memory_bytes = 0;  // of waiting and running together; 0: no bound
  Duration longest_wait = std::chrono::seconds(60);  // then DEADLINE_EXCEEDED
};

class AdmissionQueue {
 public:
  static constexpr double kAging = 1.0;  // priority points a second
  static constexpr std::int32_t kMaxPriority = 100;

  AdmissionQueue(const AdmissionLimits& limits, const Clock& clock)
      : limits_(limits), clock_(clock) {}

  // Takes a place in the queue.
  // Errors: RESOURCE_EXHAUSTED (QUEUE_FULL, with a retry hint; PROMPT_TOO_LARGE if `bytes` alone
  // exceed the bound); INVALID_ARGUMENT for a priority outside -100 to 100.
  absl::StatusOr<Ticket> Enter(std::int32_t priority, std::uint64_t bytes);

  // The ticket that runs next if a place is free; it is running from then on.
  std::optional<Ticket> Admit();

  // A waiting ticket gives up, or a running one is done. Nothing happens for one that has gone.
  void Leave(Ticket ticket);

  // Tickets that have waited longer than longest_wait at a stretch; they have left. The caller
  // answers them, with TooLongError.
  std::vector<Ticket> Expire();

  // The running ticket that would be last if all were suspended now, if its effective priority
  // would be below `priority` and no place is free: whom a new arrival may displace. Nothing
  // changes.
  std::optional<Ticket> Displaceable(std::int32_t priority) const;
  // A running ticket goes back to waiting, with the waiting time that it had when it was admitted.
  // REQUIRES: it is running.
  void Suspend(Ticket ticket);

  // A running ticket gives its place up and wants none for now (its reader stalls): it is parked,
  // which is neither waiting nor running. REQUIRES: it is running.
  void Park(Ticket ticket);
  // A parked ticket waits again, as after Suspend. REQUIRES: it is parked.
  void Unpark(Ticket ticket);

  bool IsWaiting(Ticket ticket) const;
  bool IsRunning(Ticket ticket) const;
  std::int64_t waiting() const { return static_cast<std::int64_t>(order_.size()); }
  std::int64_t running() const { return running_; }
  std::uint64_t bytes() const { return bytes_; }
  // Of those that wait, at a stretch; zero if none waits.
  Duration LongestWait() const;

  // Aborts if an invariant does not hold.
  void CheckInvariants() const;

 private:
  struct Entry {
    std::int32_t priority = 0;
    std::uint64_t bytes = 0;
    TimePoint arrival;  // as if it had waited all the time since
    TimePoint since;    // when it began to wait or to run
    Duration waited{};  // before it was admitted
    bool running = false;
    bool suspended = false;  // and waits again
    bool parked = false;
  };
  // Priorities rise together with time, so the order of those that wait never changes: the instant
  // at which the effective priority is, or was, zero; then arrival, then ticket.
  using Rank = std::tuple<TimePoint, TimePoint, Ticket>;
  static Rank RankOf(const Entry& entry, TimePoint arrival, Ticket ticket);

  void StartWaiting(Ticket ticket, Entry& entry);
  void StopWaiting(Ticket ticket, const Entry& entry);
  absl::Status FullError(const char* what) const;

  const AdmissionLimits limits_;
  const Clock& clock_;
  std::map<Ticket, Entry> entries_;
  std::set<Rank> order_;                            // of those that wait, first to run first
  std::set<std::pair<TimePoint, Ticket>> waiters_;  // of those that wait, by `since`
  Ticket next_ = 1;
  std::int64_t running_ = 0;
  std::int64_t suspended_ = 0;  // that wait again
  std::uint64_t bytes_ = 0;
};

// DEADLINE_EXCEEDED (QUEUE_TIMEOUT): what an expired ticket is answered.
absl::Status TooLongError(const AdmissionLimits& limits);

}  // namespace maskkv::schedule

#endif  // MASKKV_CORE_SCHEDULE_ADMISSION_QUEUE_H_
