// SPDX-License-Identifier: Apache-2.0
#include "services/prefill/forward_gate.h"

#include "core/base/status_macros.h"

namespace maskkv::prefill {

absl::StatusOr<ForwardGate::Turn> ForwardGate::Wait(std::int32_t priority, std::uint64_t bytes,
                                                    const std::function<absl::Status()>& alive) {
  std::unique_lock lock(mu_);
  Advance();  // who has waited too long leaves room
  const TimePoint arrival = clock_.Now();
  MASKKV_ASSIGN_OR_RETURN(const schedule::Ticket ticket, queue_.Enter(priority, bytes));
  Advance();
  while (!queue_.IsRunning(ticket)) {
    if (!queue_.IsWaiting(ticket)) return schedule::TooLongError(limits_);
    if (absl::Status status = alive(); !status.ok()) {
      queue_.Leave(ticket);
      return status;
    }
    changed_.wait_for(lock, kLook);
    Advance();
  }
  return Turn(this, ticket, clock_.Now() - arrival);
}

void ForwardGate::Advance() {
  bool changed = !queue_.Expire().empty();
  while (queue_.Admit()) changed = true;
  if (changed) changed_.notify_all();
}

void ForwardGate::Leave(schedule::Ticket ticket) {
  const std::lock_guard lock(mu_);
  queue_.Leave(ticket);
  Advance();
}

std::int64_t ForwardGate::waiting() const {
  const std::lock_guard lock(mu_);
  return queue_.waiting();
}

std::int64_t ForwardGate::running() const {
  const std::lock_guard lock(mu_);
  return queue_.running();
}

Duration ForwardGate::LongestWait() const {
  const std::lock_guard lock(mu_);
  return queue_.LongestWait();
}

}  // namespace maskkv::prefill
