// SPDX-License-Identifier: Apache-2.0
//
// Bounds the requests between their arrival and their first step: tokenised, being prefilled,
// waiting for a place. Beyond the bound a request is refused before it costs anything. Thread safe;
// the clock is injected.
#ifndef MASKKV_SERVICES_DECODE_REQUEST_GATE_H_
#define MASKKV_SERVICES_DECODE_REQUEST_GATE_H_

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <set>
#include <utility>

#include "absl/status/statusor.h"
#include "core/base/clock.h"

namespace maskkv::decode {

class RequestGate {
 public:
  // A request's place in front of the step loop; destroying it gives the place up.
  class Pass {
   public:
    Pass() = default;
    Pass(Pass&& other) noexcept : gate_(std::exchange(other.gate_, nullptr)), at_(other.at_) {}
    Pass& operator=(Pass&& other) noexcept {
      std::swap(gate_, other.gate_);
      std::swap(at_, other.at_);
      return *this;
    }
    ~Pass() {
      if (gate_ != nullptr) gate_->Leave(at_);
    }

   private:
    friend class RequestGate;
    Pass(RequestGate* gate, TimePoint at) : gate_(gate), at_(at) {}
    RequestGate* gate_ = nullptr;
    TimePoint at_;
  };

  RequestGate(std::size_t capacity, const Clock& clock) : capacity_(capacity), clock_(clock) {}

  // The gate outlives the pass. Errors: RESOURCE_EXHAUSTED (QUEUE_FULL, with a retry hint),
  // UNAVAILABLE (DRAINING) once it is closed.
  absl::StatusOr<Pass> Enter();

  // Nobody enters any more. Returns when nobody waits or `wait` is over.
  void Close(std::chrono::milliseconds wait);

  std::size_t waiting() const;
  Duration LongestWait() const;  // zero if none waits

 private:
  void Leave(TimePoint at);

  const std::size_t capacity_;
  const Clock& clock_;

  mutable std::mutex mu_;
  std::condition_variable empty_;
  std::multiset<TimePoint> arrivals_;  // guarded by mu_
  bool closed_ = false;                // guarded by mu_
};

}  // namespace maskkv::decode

#endif  // MASKKV_SERVICES_DECODE_REQUEST_GATE_H_
