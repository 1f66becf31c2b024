// SPDX-License-Identifier: Apache-2.0
//
// How benches with a main of their own take the time: wall clock and medians. Pure but for the
// clock.
#ifndef MASKKV_TESTS_BENCH_TIMING_H_
#define MASKKV_TESTS_BENCH_TIMING_H_

#include <algorithm>
#include <chrono>
#include <vector>

namespace maskkv::bench {

using Clock = std::chrono::steady_clock;

inline double Since(Clock::time_point from) {
  return std::chrono::duration<double>(Clock::now() - from).count();
}

// Seconds that `call` takes.
template <typename Call>
double SecondsOf(const Call& call) {
  const Clock::time_point start = Clock::now();
  call();
  return Since(start);
}

// The upper one of two middles. REQUIRES: not empty.
inline double Median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace maskkv::bench

#endif  // MASKKV_TESTS_BENCH_TIMING_H_
