// SPDX-License-Identifier: Apache-2.0
//
// What one ParallelFor over empty bodies costs: the price of every parallel region of a step.
// Arguments: threads, items.
#include <benchmark/benchmark.h>

#include "kernels/parallel/worker_pool.h"

namespace maskkv::kernels {
namespace {

void BM_ParallelFor(benchmark::State& state) {
  WorkerPool pool(static_cast<int>(state.range(0)));
  for (auto _ : state) {
    pool.ParallelFor(state.range(1),
                     [](std::int64_t item, int) { benchmark::DoNotOptimize(item); });
  }
}

BENCHMARK(BM_ParallelFor)
    ->ArgNames({"threads", "items"})
    ->ArgsProduct({{1, 2}, {1, 8, 64}})
    ->UseRealTime();

}  // namespace
}  // namespace maskkv::kernels
