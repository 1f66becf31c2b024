// SPDX-License-Identifier: Apache-2.0
//
// Rotary embedding of query rows, one thread. Arguments: rows, heads, head_dim.
#include <benchmark/benchmark.h>

#include <numeric>
#include <vector>

#include "kernels/rope/rope.h"

namespace maskkv::kernels {
namespace {

void BM_ApplyRope(benchmark::State& state) {
  const std::int64_t rows = state.range(0);
  const std::int64_t heads = state.range(1);
  const std::int64_t head_dim = state.range(2);
  const RopeTable table = RopeTable::Build(500000.0, head_dim, rows);
  std::vector<std::int32_t> positions(static_cast<std::size_t>(rows));
  std::iota(positions.begin(), positions.end(), 0);
  std::vector<float> x(static_cast<std::size_t>(rows * heads * head_dim), 0.5F);
  for (auto _ : state) {
    ApplyRope(table, positions.data(), x.data(), rows, heads * head_dim, heads);
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * rows * heads * head_dim * 8);
}

BENCHMARK(BM_ApplyRope)
    ->ArgNames({"rows", "heads", "head_dim"})
    ->Args({32, 8, 64})
    ->Args({64, 32, 128})
    ->Args({2048, 32, 128});

}  // namespace
}  // namespace maskkv::kernels
