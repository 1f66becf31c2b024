// SPDX-License-Identifier: Apache-2.0
//
// Time as an argument: plain classes that wait for nothing take a Clock, tests move a ManualClock.
// Monotonic; never wall time. Thread safe.
#ifndef MASKKV_CORE_BASE_CLOCK_H_
#define MASKKV_CORE_BASE_CLOCK_H_

#include <atomic>
#include <chrono>

namespace maskkv {

using TimePoint = std::chrono::steady_clock::time_point;
using Duration = std::chrono::steady_clock::duration;

inline double Milliseconds(Duration duration) {
  return std::chrono::duration<double, std::milli>(duration).count();
}

class Clock {
 public:
  virtual ~Clock() = default;
  virtual TimePoint Now() const = 0;
};

class SteadyClock final : public Clock {
 public:
  TimePoint Now() const override { return std::chrono::steady_clock::now(); }
};

class ManualClock final : public Clock {
 public:
  TimePoint Now() const override { return TimePoint(Duration(now_.load())); }
  void Advance(Duration by) { now_.fetch_add(by.count()); }

 private:
  std::atomic<Duration::rep> now_{0};
};

}  // namespace maskkv

#endif  // MASKKV_CORE_BASE_CLOCK_H_
