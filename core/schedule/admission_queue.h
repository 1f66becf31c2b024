// SPDX-License-Identifier: Apache-2.0
//
// Who may run next: a bounded queue with priorities that age, in front of a fixed number of places.
// Prefill has one place (the forward), decode as many as a batch holds. A plain class: it decides,
// the caller waits. Not thread safe; the clock is injected.
//
// Order: effective priority = priority + waited seconds * kAging, higher first; ties to the earlier
// arrival. So a high priority overtakes a queue of low ones, and a low one overtakes every fresh high
// one after (difference / kAging) seconds: nobody starves.
//
// Invariants: running() <= places; waiting() <= capacity; every ticket is in exactly one of waiting,
// running, gone.
#ifndef MASKKV_CORE_SCHEDULE_ADMISSION_QUEUE_H_
#define MASKKV_CORE_SCHEDULE_ADMISSION_QUEUE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/clock.h"

namespace maskkv::schedule {

using Ticket = std::uint64_t;

struct AdmissionLimits {
  std::int64_t places = 1;             // running at once
  std::int64_t capacity = 64;          // waiting at once
  std::uint64_t memory_bytes = 0;      // of waiting and running together; 0: no bound
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

  // A waiting ticket gives up, or a running one is done.
  void Leave(Ticket ticket);

  // Tickets that have waited longer than longest_wait; they have left. The caller answers them.
  std::vector<Ticket> Expire();

  // The running ticket of the lowest base priority, if that is below `priority` and no place is free:
  // whom a new arrival may displace. Nothing changes.
  std::optional<Ticket> Displaceable(std::int32_t priority) const;
  // A running ticket goes back to waiting with its old arrival. REQUIRES: it is running.
  void Suspend(Ticket ticket);

  std::int64_t waiting() const;
  std::int64_t running() const;
  std::uint64_t bytes() const;
  Duration LongestWait() const;  // zero if none waits

  void CheckInvariants() const;

 private:
  struct Entry {
    std::int32_t priority = 0;
    std::uint64_t bytes = 0;
    TimePoint arrival;
    bool running = false;
  };

  const AdmissionLimits limits_;
  const Clock& clock_;
  std::map<Ticket, Entry> entries_;
  Ticket next_ = 1;
  std::int64_t running_ = 0;
  std::uint64_t bytes_ = 0;
};

}  // namespace maskkv::schedule

#endif  // MASKKV_CORE_SCHEDULE_ADMISSION_QUEUE_H_
