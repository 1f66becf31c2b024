// SPDX-License-Identifier: Apache-2.0
//
// The two loops whose speed step_rates.h measures. Compiled as the kernels are; pure.
#ifndef MASKKV_TESTS_BENCH_STEP_LOOPS_H_
#define MASKKV_TESTS_BENCH_STEP_LOOPS_H_

#include <cstdint>

namespace maskkv::bench {

// y[i] = e^x[i] by kernels/base/elementary.h.
void ExpAll(const float* x, std::int64_t n, float* y);

// a[i] = b[i] + c[i] / 2.
void Triad(const float* b, const float* c, std::int64_t n, float* a);

}  // namespace maskkv::bench

#endif  // MASKKV_TESTS_BENCH_STEP_LOOPS_H_
