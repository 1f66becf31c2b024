// SPDX-License-Identifier: Apache-2.0
//
// What this machine can do at best, measured piece by piece: the terms of the bounds that steps and
// prefills are compared with. Units: operations (multiply and add are two), bytes, exponentials a
// second. Each is the best of several tries, so that a machine which does other work shows least.
#ifndef MASKKV_TESTS_BENCH_STEP_RATES_H_
#define MASKKV_TESTS_BENCH_STEP_RATES_H_

#include <cstdint>

#include "kernels/base/dtype.h"
#include "kernels/parallel/worker_pool.h"
#include "tests/bench/step_world.h"

namespace maskkv::bench {

// One product by oneDNN alone in what it has for the dtype (OneDnnType), with OpenMP's threads.
double GemmRate(std::int64_t rows, std::int64_t in, std::int64_t out, kernels::DType dtype);

// The engine's attention, as a layer calls it: query rows over pairs of an entry and own rows. In a
// prefill all rows are own ones and queries come in blocks.
struct AttentionLoad {
  std::int64_t queries = 0;
  std::int64_t own_rows = 0;  // >= queries
  std::int64_t pairs = 0;     // a head, of an entry of the world's dtype
};
double AttentionRate(World& world, const AttentionLoad& load);

// f32 exponentials by the kernels' polynomial on every worker.
double ExpRate(kernels::WorkerPool& pool);

// a[i] = b[i] + s * c[i] over arrays larger than the caches, on every worker: three streams.
double TriadRate(kernels::WorkerPool& pool);

}  // namespace maskkv::bench

#endif  // MASKKV_TESTS_BENCH_STEP_RATES_H_
