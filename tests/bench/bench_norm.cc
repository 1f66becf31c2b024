// SPDX-License-Identifier: Apache-2.0
//
// RMSNorm and cosine similarity, one thread. Arguments: rows (of RMSNorm), width.
#include <benchmark/benchmark.h>

#include <vector>

#include "kernels/norm/cosine.h"
#include "kernels/norm/rms_norm.h"

namespace maskkv::kernels {
namespace {

void BM_RmsNorm(benchmark::State& state) {
  const std::int64_t rows = state.range(0);
  const std::int64_t width = state.range(1);
  const std::vector<float> x(static_cast<std::size_t>(rows * width), 0.5F);
  const std::vector<float> weight(static_cast<std::size_t>(width), 1.0F);
  std::vector<float> y(x.size());
  for (auto _ : state) {
    RmsNorm(x.data(), rows, width, width, weight.data(), 1e-5F, y.data(), width);
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * rows * width * 8);
}

void BM_CosineSimilarity(benchmark::State& state) {
  const std::int64_t width = state.range(0);
  const std::vector<float> a(static_cast<std::size_t>(width), 0.5F);
  for (auto _ : state) benchmark::DoNotOptimize(CosineSimilarity(a.data(), a.data(), width));
  state.SetBytesProcessed(state.iterations() * width * 8);
}

BENCHMARK(BM_RmsNorm)->ArgNames({"rows", "width"})->Args({32, 512})->Args({64, 4096});
BENCHMARK(BM_CosineSimilarity)->ArgName("width")->Arg(512)->Arg(4096);

}  // namespace
}  // namespace maskkv::kernels
