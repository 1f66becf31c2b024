// SPDX-License-Identifier: Apache-2.0
//
// SwiGLU over gate | up rows, one thread. Arguments: rows, width.
#include <benchmark/benchmark.h>

#include <vector>

#include "kernels/activation/swiglu.h"

namespace maskkv::kernels {
namespace {

void BM_SwiGlu(benchmark::State& state) {
  const std::int64_t rows = state.range(0);
  const std::int64_t width = state.range(1);
  const std::vector<float> both(static_cast<std::size_t>(rows * width * 2), 0.5F);
  std::vector<float> y(static_cast<std::size_t>(rows * width));
  for (auto _ : state) {
    SwiGlu(both.data(), both.data() + width, rows, 2 * width, width, y.data(), width);
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * rows * width * 12);
}

BENCHMARK(BM_SwiGlu)->ArgNames({"rows", "width"})->Args({32, 1376})->Args({64, 12288});

}  // namespace
}  // namespace maskkv::kernels
