// SPDX-License-Identifier: Apache-2.0
#include "services/decode/step_schedule.h"

#include <algorithm>
#include <functional>
#include <iterator>

#include "absl/strings/str_format.h"
#include "core/base/check.h"
#include "core/base/error.h"

namespace maskkv::decode {
namespace {

schedule::AdmissionLimits AdmissionOf(const StepLimits& limits) {
  schedule::AdmissionLimits admission;
  admission.places = limits.max_running;
  admission.capacity = limits.capacity;
  admission.longest_wait = limits.longest_wait;
  return admission;
}

}  // namespace

StepSchedule::StepSchedule(const StepLimits& limits, const Clock& clock)
    : limits_(limits), admission_(AdmissionOf(limits)), clock_(clock), queue_(admission_, clock) {}

absl::StatusOr<std::vector<SequenceId>> StepSchedule::Join(std::int32_t priority,
                                                           std::int64_t count) {
  std::vector<SequenceId> ids;
  for (std::int64_t i = 0; i < count; ++i) {
    const absl::StatusOr<schedule::Ticket> ticket = queue_.Enter(priority, 0);
    if (!ticket.ok()) {
      for (const SequenceId id : ids) Leave(id);
      return ticket.status();
    }
    sequences_[*ticket].priority = priority;
    ids.push_back(*ticket);
  }
  return ids;
}

void StepSchedule::Leave(SequenceId id) {
  queue_.Leave(id);
  sequences_.erase(id);
  std::erase(stepping_, id);
}

void StepSchedule::SetRoom(SequenceId id, bool room) {
  const auto found = sequences_.find(id);
  if (found == sequences_.end() || room == !found->second.full) return;
  if (room) {
    found->second.full.reset();
  } else {
    found->second.full = clock_.Now();
  }
}

StepDecision StepSchedule::Decide() {
  StepDecision decision;
  std::vector<SequenceId> before = stepping_;
  EndStalled(decision);
  decision.timed_out = queue_.Expire();
  std::sort(decision.timed_out.begin(), decision.timed_out.end());
  for (const SequenceId id : decision.timed_out) Leave(id);
  Place();
  Displace();

  stepping_.clear();
  for (const auto& [id, sequence] : sequences_) {
    if (queue_.IsRunning(id)) stepping_.push_back(id);
  }
  std::erase_if(before, [&](SequenceId id) { return !sequences_.contains(id); });
  std::set_difference(stepping_.begin(), stepping_.end(), before.begin(), before.end(),
                      std::back_inserter(decision.start));
  std::set_difference(before.begin(), before.end(), stepping_.begin(), stepping_.end(),
                      std::back_inserter(decision.pause));
  return decision;
}

void StepSchedule::EndStalled(StepDecision& decision) {
  for (const auto& [id, sequence] : sequences_) {
    if (sequence.full && clock_.Now() - *sequence.full > limits_.stall_limit) {
      decision.stalled.push_back(id);
    }
  }
  for (const SequenceId id : decision.stalled) Leave(id);
}

void StepSchedule::Place() {
  for (auto& [id, sequence] : sequences_) {
    if (sequence.full && queue_.IsRunning(id)) {
      Park(id, sequence);
    } else if (!sequence.full && sequence.parked) {
      queue_.Unpark(id);
      sequence.parked = false;
    }
  }
  while (Admit()) {
  }
}

bool StepSchedule::Admit() {
  while (const std::optional<schedule::Ticket> ticket = queue_.Admit()) {
    Sequence& sequence = sequences_.at(*ticket);
    sequence.stepped = true;
    if (!sequence.full) return true;
    Park(*ticket, sequence);  // displaced, and not read since
  }
  return false;
}

void StepSchedule::Park(SequenceId id, Sequence& sequence) {
  queue_.Park(id);
  sequence.parked = true;
}

void StepSchedule::Displace() {
  std::vector<std::int32_t> arrivals;
  for (const auto& [id, sequence] : sequences_) {
    if (!sequence.stepped && queue_.IsWaiting(id)) arrivals.push_back(sequence.priority);
  }
  std::sort(arrivals.begin(), arrivals.end(), std::greater<>());
  for (const std::int32_t priority : arrivals) {
    const std::optional<schedule::Ticket> victim = queue_.Displaceable(priority);
    if (!victim) return;  // nor for a lower one
    queue_.Suspend(*victim);
    // Whoever is first takes the place: the arrival, or one that has aged beyond it.
    Admit();
  }
}

StepCounts StepSchedule::counts() const {
  StepCounts counts;
  for (const auto& [id, sequence] : sequences_) {
    if (queue_.IsRunning(id)) {
      ++counts.running;
    } else if (sequence.parked) {
      ++counts.stalled;
    } else if (sequence.stepped) {
      ++counts.displaced;
    } else {
      ++counts.waiting;
    }
  }
  return counts;
}

absl::Status StepSchedule::StalledError() const {
  const auto limit = std::chrono::duration_cast<std::chrono::milliseconds>(limits_.stall_limit);
  return MakeError(
      absl::StatusCode::kResourceExhausted, "SLOW_READER",
      absl::StrFormat("reader: expected to take an event within %d ms, found none taken",
                      limit.count()),
      {{"stall_limit_ms", absl::StrFormat("%d", limit.count())}});
}

void StepSchedule::CheckInvariants() const {
  queue_.CheckInvariants();
  const StepCounts counts = this->counts();
  MASKKV_CHECK(counts.running == queue_.running() && counts.running <= limits_.max_running,
               "steps are bounded");
  MASKKV_CHECK(counts.waiting + counts.displaced == queue_.waiting(), "the rest waits");
  MASKKV_CHECK(counts.waiting <= limits_.capacity, "waiting is bounded");
  MASKKV_CHECK(std::is_sorted(stepping_.begin(), stepping_.end()), "by ascending id");
  for (const SequenceId id : stepping_) MASKKV_CHECK(sequences_.contains(id), "steps and is here");
  for (const auto& [id, sequence] : sequences_) {
    MASKKV_CHECK(!sequence.parked || (!queue_.IsRunning(id) && !queue_.IsWaiting(id)),
                 "a parked sequence wants no place");
    MASKKV_CHECK(sequence.stepped || !queue_.IsRunning(id), "who runs has had a place");
  }
}

}  // namespace maskkv::decode
