// SPDX-License-Identifier: Apache-2.0
//
// Attention and mask scores beside matrix products of oneDNN on the same machine, in the same run
// and on the same number of threads. Counters:
//   GFLOPs     4 * query rows * keys * heads * head_dim a second (2 for mask scores: one product)
//   gemm       of oneDNN: f32, sgemm on the two products inside (scores of 128 query rows, then
//              their product with the values); bf16, its matmul of 2048 x 1024 by 1024 x 1024
//   ratio      GFLOPs / gemm
// Rates are the best of a third of a second of processor time; the time columns are means.
// --benchmark_filter picks shapes; the last argument of a benchmark is the number of threads.
#include <benchmark/benchmark.h>
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <random>
#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/attention/mask_scores.h"
#include "kernels/base/aligned_buffer.h"
#include "kernels/base/cached_row.h"
#include "tests/bench/onednn_matmul.h"

namespace maskkv::kernels {
namespace {

// Normal numbers, bf16 ones if asked for.
AlignedBuffer<float> Normal(std::int64_t count, DType dtype = DType::kF32) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  AlignedBuffer<float> values(count);
  for (float& value : values.span()) value = normal(random);
  if (dtype == DType::kBF16) RoundToBf16InPlace(values.data(), count);
  return values;
}

// The best rate of `run` in GFLOP/s over a third of a second of this process's processor time on
// `threads` threads: on a machine that others use too, means and wall time say how busy they were.
// std::clock counts microseconds, so short runs are timed in batches of some milliseconds.
template <class Run>
double BestRate(double flops, int threads, const Run& run) {
  const int batch = std::max(1, static_cast<int>(threads * 3e8 / flops));
  run();
  double best = 0;
  const std::clock_t end = std::clock() + threads * CLOCKS_PER_SEC / 3;
  do {
    const std::clock_t start = std::clock();
    for (int i = 0; i < batch; ++i) run();
    const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC / threads;
    best = std::max(best, batch * flops / seconds * 1e-9);
  } while (std::clock() < end);
  return best;
}

// BestRate of sgemm on one head's two products, every thread of the pool busy with its own head.
double SgemmRate(WorkerPool& pool, std::int64_t rows, std::int64_t keys, std::int64_t head_dim,
                 bool values_too) {
  rows = std::min<std::int64_t>(rows, 128);
  const int threads = pool.threads();
  const AlignedBuffer<float> q = Normal(rows * head_dim);
  const AlignedBuffer<float> k = Normal(keys * head_dim);
  AlignedBuffer<float> s(threads * rows * keys);
  AlignedBuffer<float> out(threads * rows * head_dim);
  const double flops = static_cast<double>((values_too ? 4 : 2) * rows * keys * head_dim * threads);
  return BestRate(flops, threads, [&] {
    pool.ParallelFor(threads, [&](std::int64_t item, int) {
      float* scores = s.data() + item * rows * keys;
      dnnl_sgemm('N', 'T', rows, keys, head_dim, 1.0F, q.data(), head_dim, k.data(), head_dim, 0.0F,
                 scores, keys);
      if (!values_too) return;
      dnnl_sgemm('N', 'N', rows, head_dim, keys, 1.0F, scores, keys, k.data(), head_dim, 0.0F,
                 out.data() + item * rows * head_dim, head_dim);
    });
  });
}

// BestRate of a bf16 matrix product that fits the second-level caches, on OpenMP's own team.
double Bf16GemmRate(int threads) {
  omp_set_num_threads(threads);
  OneDnnMatMul product(2048, 1024, 1024, DType::kBF16);
  return BestRate(2.0 * 2048 * 1024 * 1024, threads, [&] { product.Run(); });
}

double GemmRate(WorkerPool& pool, std::int64_t rows, std::int64_t keys, std::int64_t head_dim,
                DType dtype) {
  return dtype == DType::kBF16 ? Bf16GemmRate(pool.threads())
                               : SgemmRate(pool, rows, keys, head_dim, true);
}

template <class Run>
void Measure(benchmark::State& state, WorkerPool& pool, double flops, double gemm, const Run& run) {
  for (auto _ : state) run();
  const double rate = BestRate(flops, pool.threads(), run);
  state.counters["GFLOPs"] = rate;
  state.counters["gemm"] = gemm;
  state.counters["ratio"] = rate / gemm;
}

// A decoding step's attention: `rows` own rows over `pairs` kept pairs a head and themselves.
void BM_Decode(benchmark::State& state, DType dtype, DType products) {
  const AttentionShape shape{state.range(3), state.range(3), state.range(2), products};
  const std::int64_t rows = state.range(0);
  const std::int64_t pairs = state.range(1);
  const std::int64_t width = shape.heads * shape.head_dim;
  WorkerPool pool(static_cast<int>(state.range(4)));
  const AlignedBuffer<float> qkv = Normal(rows * 3 * width, products);
  const AlignedBuffer<float> cached = Normal(2 * pairs * width);
  AlignedBuffer<Bf16> narrow(cached.size());
  ConvertToBf16(cached.data(), cached.size(), narrow.data());
  AlignedBuffer<std::int8_t> bytes(cached.size());
  AlignedBuffer<float> scales(2 * pairs * shape.heads);
  for (std::int64_t row = 0; row < scales.size(); ++row) {
    scales.data()[row] = QuantiseCachedRow(cached.data() + row * shape.head_dim, shape.head_dim,
                                           bytes.data() + row * shape.head_dim);
  }
  AlignedBuffer<float> out(rows * width);
  std::vector<CachedHead> heads;
  for (std::int64_t h = 0; h < shape.heads; ++h) {
    const std::int64_t k = 2 * h * pairs * shape.head_dim;
    const std::int64_t v = k + pairs * shape.head_dim;
    if (dtype == DType::kF32) heads.push_back({cached.data() + k, cached.data() + v, pairs});
    if (dtype == DType::kBF16) heads.push_back({narrow.data() + k, narrow.data() + v, pairs});
    const float* scale = scales.data() + 2 * h * pairs;
    if (dtype == DType::kInt8) {
      heads.push_back({bytes.data() + k, bytes.data() + v, pairs, scale, scale + pairs});
    }
  }
  const AttentionRequest request{.q = qkv.data(),
                                 .ldq = 3 * width,
                                 .query_rows = rows,
                                 .k = qkv.data() + width,
                                 .v = qkv.data() + 2 * width,
                                 .ldkv = 3 * width,
                                 .own_rows = rows,
                                 .cached = heads,
                                 .cached_dtype = dtype,
                                 .out = out.data(),
                                 .ldo = width,
                                 .lse = nullptr};
  AttentionWorkspace workspace;
  Measure(state, pool, static_cast<double>(4 * rows * (pairs + rows) * width),
          GemmRate(pool, rows, pairs + rows, shape.head_dim, products), [&] {
            RaggedAttention(pool, shape, {&request, 1}, workspace);
          });
}

// Full bidirectional attention of n rows.
void MeasurePrefill(benchmark::State& state, std::int64_t n, std::int64_t head_dim,
                    std::int64_t heads, int threads, DType dtype, const LaneKernels& lanes) {
  const AttentionShape shape{heads, heads, head_dim, dtype};
  const std::int64_t width = shape.heads * shape.head_dim;
  WorkerPool pool(threads);
  const AlignedBuffer<float> qkv = Normal(n * 3 * width, dtype);
  AlignedBuffer<float> out(n * width);
  const AttentionRequest request{.q = qkv.data(),
                                 .ldq = 3 * width,
                                 .query_rows = n,
                                 .k = qkv.data() + width,
                                 .v = qkv.data() + 2 * width,
                                 .ldkv = 3 * width,
                                 .own_rows = n,
                                 .cached = {},
                                 .cached_dtype = DType::kF32,
                                 .out = out.data(),
                                 .ldo = width,
                                 .lse = nullptr};
  AttentionWorkspace workspace;
  workspace.lanes = &lanes;
  Measure(state, pool, static_cast<double>(4 * n * n * width),
          GemmRate(pool, n, n, shape.head_dim, dtype), [&] {
            RaggedAttention(pool, shape, {&request, 1}, workspace);
          });
}

void BM_Prefill(benchmark::State& state, DType dtype) {
  MeasurePrefill(state, state.range(0), state.range(1), state.range(2),
                 static_cast<int>(state.range(3)), dtype, BestLaneKernels());
}

// The same on every instruction set that the machine has, widest first. (sgemm stays the best.)
void BM_PrefillOnInstructionSet(benchmark::State& state) {
  const std::vector<const LaneKernels*> sets = SupportedLaneKernels();
  const auto index = static_cast<std::size_t>(state.range(0));
  if (index >= sets.size()) return state.SkipWithError("no such instruction set");
  state.SetLabel(sets[index]->name);
  MeasurePrefill(state, 1024, 64, 8, 1, DType::kF32, *sets[index]);
}

// Mask voting: `rows` mask rows over n keys.
void BM_MaskScores(benchmark::State& state) {
  const AttentionShape shape{state.range(3), state.range(3), state.range(2)};
  const std::int64_t rows = state.range(0);
  const std::int64_t n = state.range(1);
  const std::int64_t width = shape.heads * shape.head_dim;
  WorkerPool pool(static_cast<int>(state.range(4)));
  const AlignedBuffer<float> q = Normal(rows * width);
  const AlignedBuffer<float> k = Normal(n * width);
  const std::vector<float> lse(static_cast<std::size_t>(shape.heads * rows), 9.0F);
  AlignedBuffer<float> scores(shape.kv_heads * n);
  AttentionWorkspace workspace;
  Measure(state, pool, static_cast<double>(2 * rows * n * width),
          SgemmRate(pool, rows, n, shape.head_dim, false), [&] {
            MaskQueryScores(pool, shape, q.data(), width, rows, lse.data(), k.data(), width, n,
                            scores.data(), workspace);
          });
}

// rows, pairs, head_dim, heads, threads
BENCHMARK_CAPTURE(BM_Decode, f32, DType::kF32, DType::kF32)
    ->Args({32, 256, 64, 8, 1})
    ->Args({32, 256, 128, 8, 1})
    ->Args({32, 128, 64, 8, 1})
    ->Args({128, 256, 128, 8, 1})
    ->Args({8, 256, 64, 8, 1})
    ->Args({32, 256, 64, 8, 2})
    ->UseRealTime();
BENCHMARK_CAPTURE(BM_Decode, bf16_pairs, DType::kBF16, DType::kF32)
    ->Args({32, 256, 64, 8, 1})
    ->Args({32, 256, 128, 8, 1})
    ->UseRealTime();
BENCHMARK_CAPTURE(BM_Decode, bf16, DType::kBF16, DType::kBF16)
    ->Args({8, 256, 128, 8, 1})
    ->Args({16, 256, 128, 8, 1})
    ->Args({32, 256, 64, 8, 1})
    ->Args({32, 256, 128, 8, 1})
    ->Args({32, 256, 128, 8, 2})
    ->UseRealTime();
BENCHMARK_CAPTURE(BM_Decode, int8, DType::kInt8, DType::kF32)
    ->Args({32, 256, 64, 8, 1})
    ->Args({32, 256, 128, 8, 1})
    ->UseRealTime();
BENCHMARK_CAPTURE(BM_Decode, int8_products, DType::kInt8, DType::kBF16)
    ->Args({32, 256, 128, 8, 1})
    ->UseRealTime();
// n, head_dim, heads, threads
BENCHMARK_CAPTURE(BM_Prefill, f32, DType::kF32)
    ->Args({1024, 64, 8, 1})
    ->Args({1024, 128, 8, 1})
    ->Args({4096, 64, 8, 1})
    ->Args({4096, 128, 8, 1})
    ->Args({4096, 64, 8, 2})
    ->Args({16384, 64, 2, 1})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK_CAPTURE(BM_Prefill, bf16, DType::kBF16)
    ->Args({2048, 64, 8, 2})
    ->Args({2048, 128, 8, 2})
    ->Args({8192, 128, 8, 2})
    ->Args({8192, 128, 8, 1})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK(BM_PrefillOnInstructionSet)->DenseRange(0, 3)->Unit(benchmark::kMillisecond);
// rows, n, head_dim, heads, threads
BENCHMARK(BM_MaskScores)
    ->Args({32, 4096, 64, 8, 1})
    ->Args({32, 16384, 128, 8, 1})
    ->Args({128, 4096, 64, 8, 1})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

}  // namespace
}  // namespace maskkv::kernels
