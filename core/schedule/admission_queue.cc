// SPDX-License-Identifier: Apache-2.0
#include "core/schedule/admission_queue.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "core/base/check.h"
#include "core/base/error.h"

namespace maskkv::schedule {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kShortestRetry{100};

std::int64_t Milliseconds(Duration duration) {
  return std::chrono::duration_cast<milliseconds>(duration).count();
}

// The time in which aging adds so many points.
Duration AgeOf(std::int32_t priority) {
  return std::chrono::duration_cast<Duration>(
      std::chrono::duration<double>(priority / AdmissionQueue::kAging));
}

}  // namespace

absl::Status TooLongError(const AdmissionLimits& limits) {
  return MakeError(absl::StatusCode::kDeadlineExceeded, "QUEUE_TIMEOUT",
                   absl::StrFormat("queue: expected a place within %d ms, found none",
                                   Milliseconds(limits.longest_wait)),
                   {{"longest_wait_ms", absl::StrFormat("%d", Milliseconds(limits.longest_wait))}});
}

// When the queue will have room is a guess: not before as much time as its oldest has waited.
absl::Status AdmissionQueue::FullError(const char* what) const {
  const auto waited = std::chrono::duration_cast<milliseconds>(LongestWait());
  const auto longest = std::chrono::duration_cast<milliseconds>(limits_.longest_wait);
  return WithRetryAfter(
      MakeError(absl::StatusCode::kResourceExhausted, "QUEUE_FULL",
                absl::StrFormat("queue: expected room for %s, found %d waiting of %d", what,
                                waiting(), limits_.capacity),
                {{"waiting", absl::StrFormat("%d", waiting())},
                 {"capacity", absl::StrFormat("%d", limits_.capacity)}}),
      std::max(kShortestRetry, std::min(waited, longest)));
}

AdmissionQueue::Rank AdmissionQueue::RankOf(const Entry& entry, TimePoint arrival, Ticket ticket) {
  return {arrival - AgeOf(entry.priority), arrival, ticket};
}

absl::StatusOr<Ticket> AdmissionQueue::Enter(std::int32_t priority, std::uint64_t bytes) {
  if (priority < -kMaxPriority || priority > kMaxPriority) {
    return MakeError(absl::StatusCode::kInvalidArgument, "BAD_PRIORITY",
                     absl::StrFormat("priority: expected an integer from %d to %d, found %d",
                                     -kMaxPriority, kMaxPriority, priority));
  }
  if (limits_.memory_bytes > 0 && bytes > limits_.memory_bytes) {
    return MakeError(
        absl::StatusCode::kResourceExhausted, "PROMPT_TOO_LARGE",
        absl::StrFormat("request: expected at most %d bytes of working memory, found %d needed: %d "
                        "missing",
                        limits_.memory_bytes, bytes, bytes - limits_.memory_bytes),
        {{"limit_bytes", absl::StrFormat("%d", limits_.memory_bytes)},
         {"needed_bytes", absl::StrFormat("%d", bytes)},
         {"missing_bytes", absl::StrFormat("%d", bytes - limits_.memory_bytes)}});
  }
  if (waiting() >= limits_.capacity) return FullError("one more request");
  if (limits_.memory_bytes > 0 && bytes > limits_.memory_bytes - bytes_) {
    return FullError("the request's working memory");
  }
  const Ticket ticket = next_++;
  Entry& entry = entries_[ticket];
  entry.priority = priority;
  entry.bytes = bytes;
  entry.arrival = clock_.Now();
  bytes_ += bytes;
  StartWaiting(ticket, entry);
  return ticket;
}

void AdmissionQueue::StartWaiting(Ticket ticket, Entry& entry) {
  entry.since = clock_.Now();
  order_.insert(RankOf(entry, entry.arrival, ticket));
  waiters_.insert({entry.since, ticket});
}

void AdmissionQueue::StopWaiting(Ticket ticket, const Entry& entry) {
  order_.erase(RankOf(entry, entry.arrival, ticket));
  waiters_.erase({entry.since, ticket});
  if (entry.suspended) --suspended_;
}

std::optional<Ticket> AdmissionQueue::Admit() {
  if (running_ >= limits_.places || order_.empty()) return std::nullopt;
  const Ticket ticket = std::get<2>(*order_.begin());
  Entry& entry = entries_.at(ticket);
  StopWaiting(ticket, entry);
  entry.suspended = false;
  entry.running = true;
  entry.since = clock_.Now();
  entry.waited = entry.since - entry.arrival;
  ++running_;
  return ticket;
}

void AdmissionQueue::Leave(Ticket ticket) {
  const auto found = entries_.find(ticket);
  if (found == entries_.end()) return;
  if (found->second.running) {
    --running_;
  } else if (!found->second.parked) {
    StopWaiting(ticket, found->second);
  }
  bytes_ -= found->second.bytes;
  entries_.erase(found);
}

std::vector<Ticket> AdmissionQueue::Expire() {
  std::vector<Ticket> expired;
  const TimePoint now = clock_.Now();
  while (!waiters_.empty() && now - waiters_.begin()->first > limits_.longest_wait) {
    expired.push_back(waiters_.begin()->second);
    Leave(expired.back());
  }
  return expired;
}

std::optional<Ticket> AdmissionQueue::Displaceable(std::int32_t priority) const {
  if (running_ < limits_.places) return std::nullopt;
  const TimePoint now = clock_.Now();
  std::optional<Rank> last;
  for (const auto& [ticket, entry] : entries_) {
    if (!entry.running) continue;
    const Rank rank = RankOf(entry, now - entry.waited, ticket);
    if (!last || rank > *last) last = rank;
  }
  if (!last || std::get<0>(*last) <= now - AgeOf(priority)) return std::nullopt;
  return std::get<2>(*last);
}

void AdmissionQueue::Suspend(Ticket ticket) {
  Park(ticket);
  Unpark(ticket);
}

void AdmissionQueue::Park(Ticket ticket) {
  const auto found = entries_.find(ticket);
  MASKKV_CHECK(found != entries_.end() && found->second.running, "the ticket is running");
  found->second.running = false;
  found->second.parked = true;
  --running_;
}

void AdmissionQueue::Unpark(Ticket ticket) {
  const auto found = entries_.find(ticket);
  MASKKV_CHECK(found != entries_.end() && found->second.parked, "the ticket is parked");
  Entry& entry = found->second;
  entry.parked = false;
  entry.suspended = true;
  entry.arrival = clock_.Now() - entry.waited;
  ++suspended_;
  StartWaiting(ticket, entry);
}

bool AdmissionQueue::IsWaiting(Ticket ticket) const {
  const auto found = entries_.find(ticket);
  return found != entries_.end() && !found->second.running && !found->second.parked;
}

bool AdmissionQueue::IsRunning(Ticket ticket) const {
  const auto found = entries_.find(ticket);
  return found != entries_.end() && found->second.running;
}

Duration AdmissionQueue::LongestWait() const {
  return waiters_.empty() ? Duration::zero() : clock_.Now() - waiters_.begin()->first;
}

void AdmissionQueue::CheckInvariants() const {
  std::int64_t running = 0, waiting = 0, suspended = 0;
  std::uint64_t bytes = 0;
  for (const auto& [ticket, entry] : entries_) {
    MASKKV_CHECK(ticket > 0 && ticket < next_, "tickets were given");
    bytes += entry.bytes;
    if (entry.running) {
      ++running;
      MASKKV_CHECK(!entry.suspended && !entry.parked, "a running ticket is nothing else");
      continue;
    }
    if (entry.parked) continue;
    ++waiting;
    if (entry.suspended) ++suspended;
    MASKKV_CHECK(order_.contains(RankOf(entry, entry.arrival, ticket)), "a waiting one is ordered");
    MASKKV_CHECK(waiters_.contains({entry.since, ticket}), "a waiting one can expire");
  }
  MASKKV_CHECK(running == running_ && running <= limits_.places, "running is counted and bounded");
  MASKKV_CHECK(waiting == static_cast<std::int64_t>(order_.size()), "nobody else is ordered");
  MASKKV_CHECK(order_.size() == waiters_.size(), "nobody else can expire");
  MASKKV_CHECK(suspended == suspended_, "suspended ones are counted");
  MASKKV_CHECK(waiting - suspended <= limits_.capacity, "waiting is bounded");
  MASKKV_CHECK(bytes == bytes_, "bytes are the sum");
  MASKKV_CHECK(limits_.memory_bytes == 0 || bytes <= limits_.memory_bytes, "bytes are bounded");
}

}  // namespace maskkv::schedule
