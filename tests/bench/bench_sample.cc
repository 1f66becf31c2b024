// SPDX-License-Identifier: Apache-2.0
//
// Gumbel noise of a vocabulary, one thread. Argument: ids.
#include <benchmark/benchmark.h>

#include <vector>

#include "kernels/sample/gumbel.h"

namespace maskkv::kernels {
namespace {

void BM_GumbelNoise(benchmark::State& state) {
  std::vector<float> noise(static_cast<std::size_t>(state.range(0)));
  for (auto _ : state) {
    GumbelNoise(1, 2, 3, 0, noise);
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

BENCHMARK(BM_GumbelNoise)->ArgName("ids")->Arg(256)->Arg(126464);

}  // namespace
}  // namespace maskkv::kernels
