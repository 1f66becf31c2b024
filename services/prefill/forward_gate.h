// SPDX-License-Identifier: Apache-2.0
//
// One forward at a time: the threads of requests wait here for their turn, in the order and within
// the bounds of an admission queue. Thread safe; the clock is injected.
#ifndef MASKKV_SERVICES_PREFILL_FORWARD_GATE_H_
#define MASKKV_SERVICES_PREFILL_FORWARD_GATE_H_

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/clock.h"
#include "core/schedule/admission_queue.h"

namespace maskkv::prefill {

class ForwardGate {
 public:
  // A thread that waits looks at its call at least so often.
  static constexpr std::chrono::milliseconds kLook{20};

  // The turn of one request. Destroying it lets the next one in. The gate outlives it.
  class Turn {
   public:
    Turn() = default;
    Turn(Turn&& other) noexcept
        : gate_(std::exchange(other.gate_, nullptr)),
          ticket_(other.ticket_),
          waited_(other.waited_) {}
    Turn& operator=(Turn&& other) noexcept {
      std::swap(gate_, other.gate_);
      std::swap(ticket_, other.ticket_);
      std::swap(waited_, other.waited_);
      return *this;
    }
    ~Turn() {
      if (gate_ != nullptr) gate_->Leave(ticket_);
    }
    Duration waited() const { return waited_; }

   private:
    friend class ForwardGate;
    Turn(ForwardGate* gate, schedule::Ticket ticket, Duration waited)
        : gate_(gate), ticket_(ticket), waited_(waited) {}
    ForwardGate* gate_ = nullptr;
    schedule::Ticket ticket_ = 0;
    Duration waited_{};
  };

  ForwardGate(const schedule::AdmissionLimits& limits, const Clock& clock)
      : limits_(limits), clock_(clock), queue_(limits, clock) {}

  // Waits for the turn. alive: OK while somebody wants it; called often, must be cheap.
  // Errors: of AdmissionQueue::Enter; DEADLINE_EXCEEDED (QUEUE_TIMEOUT) after the longest wait;
  // whatever alive returns.
  absl::StatusOr<Turn> Wait(std::int32_t priority, std::uint64_t bytes,
                            const std::function<absl::Status()>& alive);

  std::int64_t waiting() const;
  std::int64_t running() const;
  Duration LongestWait() const;

 private:
  void Leave(schedule::Ticket ticket);
  void Advance();  // expires, admits, wakes. REQUIRES: mu_ is held.

  const schedule::AdmissionLimits limits_;
  const Clock& clock_;

  mutable std::mutex mu_;
  std::condition_variable changed_;
  schedule::AdmissionQueue queue_;  // guarded by mu_
};

}  // namespace maskkv::prefill

#endif  // MASKKV_SERVICES_PREFILL_FORWARD_GATE_H_
