// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/step_loops.h"

#include "kernels/base/elementary.h"
#include "kernels/base/multiversion.h"

namespace maskkv::bench {

MASKKV_MULTIVERSION void ExpAll(const float* x, std::int64_t n, float* y) {
  for (std::int64_t i = 0; i < n; ++i) y[i] = kernels::Exp(x[i]);
}

MASKKV_MULTIVERSION void Triad(const float* b, const float* c, std::int64_t n, float* a) {
  for (std::int64_t i = 0; i < n; ++i) a[i] = b[i] + 0.5F * c[i];
}

}  // namespace maskkv::bench
