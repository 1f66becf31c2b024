// SPDX-License-Identifier: Apache-2.0
//
// Which sequences take the next step: places in the batch by priority and age
// (core/schedule/admission_queue.h), a higher priority displaces the lowest running one, a sequence
// whose reader has no room gives its place up until there is room, and is ended when that takes too
// long. A plain class: it decides, the step loop acts. Not thread safe; the clock is injected.
//
// Invariants: at most max_running sequences step; a stepping sequence has room; every sequence is
// in exactly one state.
#ifndef MASKKV_SERVICES_DECODE_STEP_SCHEDULE_H_
#define MASKKV_SERVICES_DECODE_STEP_SCHEDULE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/clock.h"
#include "core/schedule/admission_queue.h"

namespace maskkv::decode {

using SequenceId = schedule::Ticket;

struct StepLimits {
  std::int64_t max_running = 16;                     // sequences that step together
  std::int64_t capacity = 1024;                      // sequences that wait for their first step
  Duration longest_wait = std::chrono::seconds(60);  // without a place, at a stretch
  Duration stall_limit = std::chrono::seconds(30);   // without room, at a stretch
};

// What changed, each list by ascending id.
struct StepDecision {
  std::vector<SequenceId> start;      // steps from now on, for the first time or again
  std::vector<SequenceId> pause;      // steps no more until it is started
  std::vector<SequenceId> timed_out;  // has left: it waited too long
  std::vector<SequenceId> stalled;    // has left: its reader did not read
};

struct StepCounts {
  std::int64_t running = 0;
  std::int64_t waiting = 0;    // never stepped
  std::int64_t displaced = 0;  // stepped and wait for a place again
  std::int64_t stalled = 0;    // wait for their readers
};

class StepSchedule {
 public:
  StepSchedule(const StepLimits& limits, const Clock& clock);

  // `count` sequences of one request, all or none; they wait.
  // Errors: RESOURCE_EXHAUSTED (QUEUE_FULL), INVALID_ARGUMENT (BAD_PRIORITY).
  absl::StatusOr<std::vector<SequenceId>> Join(std::int32_t priority, std::int64_t count);

  // Finished, failed or given up. Nothing happens for one that has left.
  void Leave(SequenceId id);

  // Whether the sequence's reader has room for another event. New ones have. Nothing happens for
  // one that has left.
  void SetRoom(SequenceId id, bool room);

  // Call it between steps.
  StepDecision Decide();

  bool Steps(SequenceId id) const { return queue_.IsRunning(id); }
  StepCounts counts() const;
  Duration LongestWait() const { return queue_.LongestWait(); }
  absl::Status TimedOutError() const { return schedule::TooLongError(admission_); }
  absl::Status StalledError() const;

  void CheckInvariants() const;

 private:
  struct Sequence {
    std::int32_t priority = 0;
    bool stepped = false;           // had a place once
    bool parked = false;            // gave its place up for want of room
    std::optional<TimePoint> full;  // since when there is no room
  };

  void EndStalled(StepDecision& decision);
  void Place();
  // Lets waiting sequences that never stepped take places of lower ones.
  void Displace();
  // The first of those that wait and have room takes a free place; false if there is none.
  bool Admit();
  void Park(SequenceId id, Sequence& sequence);

  const StepLimits limits_;
  const schedule::AdmissionLimits admission_;
  const Clock& clock_;
  schedule::AdmissionQueue queue_;
  std::map<SequenceId, Sequence> sequences_;
  std::vector<SequenceId> stepping_;  // as of the last decision, ascending
};

}  // namespace maskkv::decode

#endif  // MASKKV_SERVICES_DECODE_STEP_SCHEDULE_H_
