// SPDX-License-Identifier: Apache-2.0
//
// Top-k selection and gather-compaction at the length of a long prompt, beside the obvious
// alternatives: a full sort, a plain copy of the same bytes.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/compact/gather.h"
#include "kernels/select/top_k.h"

namespace maskkv::kernels {
namespace {

std::vector<float> Scores(std::int64_t n) {
  std::mt19937 random(1);
  std::lognormal_distribution<float> like(0.0F, 3.0F);
  std::vector<float> scores(static_cast<std::size_t>(n));
  for (float& score : scores) score = like(random);
  return scores;
}

void BM_SelectTopK(benchmark::State& state) {
  const std::vector<float> scores = Scores(state.range(0));
  std::vector<std::int32_t> kept(static_cast<std::size_t>(state.range(1)));
  for (auto _ : state) {
    SelectTopK(scores, state.range(1), kept);
    benchmark::DoNotOptimize(kept.data());
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_SelectTopK)->Args({32768, 256})->Args({32768, 8192})->Args({1024, 128});

void BM_SelectByStableSort(benchmark::State& state) {
  const std::vector<float> scores = Scores(state.range(0));
  std::vector<std::int32_t> kept(static_cast<std::size_t>(state.range(1)));
  for (auto _ : state) {
    ref::SelectTopK(scores, state.range(1), kept);
    benchmark::DoNotOptimize(kept.data());
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_SelectByStableSort)->Args({32768, 256});

void BM_AnyNan(benchmark::State& state) {
  const std::vector<float> scores = Scores(32768);
  for (auto _ : state) benchmark::DoNotOptimize(AnyNan(scores));
  state.SetBytesProcessed(state.iterations() * 32768 * 4);
}
BENCHMARK(BM_AnyNan);

// 256 rows kept out of 32768, heads of 128 in a row of 8 of them.
void BM_GatherRows(benchmark::State& state) {
  const auto dtype = static_cast<DType>(state.range(0));
  constexpr std::int64_t kRows = 32768, kDim = 128, kLd = 8 * kDim, kKept = 256;
  const std::vector<float> rows = Scores(kRows * kLd);
  std::vector<std::int32_t> kept;
  for (std::int64_t i = 0; i < kKept; ++i) {
    kept.push_back(static_cast<std::int32_t>(i * (kRows / kKept) + i % 7));
  }
  std::vector<float> out(static_cast<std::size_t>(kKept * kDim));
  std::vector<float> scales(static_cast<std::size_t>(kKept));
  for (auto _ : state) {
    GatherRows(rows.data(), kLd, kDim, kept, dtype, out.data(), scales.data());
    benchmark::DoNotOptimize(out.data());
  }
  state.SetLabel(std::string(Name(dtype)));
  state.SetBytesProcessed(state.iterations() * kKept * kDim * 4);
}
BENCHMARK(BM_GatherRows)->Arg(0)->Arg(1)->Arg(2);

void BM_Memcpy(benchmark::State& state) {
  const std::vector<float> from = Scores(256 * 128);
  std::vector<float> to(from.size());
  for (auto _ : state) {
    std::memcpy(to.data(), from.data(), from.size() * sizeof(float));
    benchmark::DoNotOptimize(to.data());
  }
  state.SetBytesProcessed(state.iterations() * 256 * 128 * 4);
}
BENCHMARK(BM_Memcpy);

}  // namespace
}  // namespace maskkv::kernels
