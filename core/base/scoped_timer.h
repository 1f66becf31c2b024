// SPDX-License-Identifier: Apache-2.0
//
// Adds the wall time of a scope to a sum of seconds. Reading the clock twice costs some 50 ns: wrap
// operations, not inner loops. Not thread safe: one scope a sum at a time.
#ifndef MASKKV_CORE_BASE_SCOPED_TIMER_H_
#define MASKKV_CORE_BASE_SCOPED_TIMER_H_

#include <chrono>

namespace maskkv {

class ScopedTimer {
 public:
  explicit ScopedTimer(double& seconds) : seconds_(seconds), start_(Clock::now()) {}
  ~ScopedTimer() { seconds_ += std::chrono::duration<double>(Clock::now() - start_).count(); }
  ScopedTimer(const ScopedTimer&) = delete;
  ScopedTimer& operator=(const ScopedTimer&) = delete;

 private:
  using Clock = std::chrono::steady_clock;
  double& seconds_;
  const Clock::time_point start_;
};

}  // namespace maskkv

#endif  // MASKKV_CORE_BASE_SCOPED_TIMER_H_
