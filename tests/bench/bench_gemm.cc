// SPDX-License-Identifier: Apache-2.0
//
// MatMul beside one oneDNN matmul primitive of the same shape, both with the same number of
// threads, in alternating blocks of one run. oneDNN gets what it likes best: weights packed for
// that very shape, inputs already in the computing type, output contiguous, its own OpenMP team.
// Counters: GFLOP/s of both and their ratio, from the fast calls of each; ours alone where oneDNN
// has no such product (bf16 below AVX-512, which MatMul emulates). Arguments: rows, in, out,
// threads.
//
// Set OMP_WAIT_POLICY=passive, or OpenMP's threads spin into our blocks of the run.
#include <benchmark/benchmark.h>
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <vector>

#include "kernels/gemm/matmul.h"
#include "tests/bench/onednn_matmul.h"

namespace maskkv::kernels {
namespace {

constexpr int kBlocks = 9;
constexpr int kLeastCalls = 5;
constexpr double kBlockSeconds = 0.03;

using Clock = std::chrono::steady_clock;

double Seconds(Clock::time_point from) {
  return std::chrono::duration<double>(Clock::now() - from).count();
}

// The tenth percentile: the call that nothing interrupted, also on a machine that does other work.
double Fast(std::vector<double> values) {
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 10);
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

// Calls for a while; drops the first third, in which the other side's threads still spin.
template <typename Call>
void Block(Call call, std::vector<double>& times) {
  std::vector<double> block;
  const Clock::time_point start = Clock::now();
  while (static_cast<int>(block.size()) < kLeastCalls || Seconds(start) < kBlockSeconds) {
    const Clock::time_point begin = Clock::now();
    call();
    block.push_back(Seconds(begin));
  }
  times.insert(times.end(), block.begin() + static_cast<std::ptrdiff_t>(block.size() / 3),
               block.end());
}

// Null where oneDNN has no such product on this machine.
std::unique_ptr<OneDnnMatMul> MakeAlone(std::int64_t rows, std::int64_t in, std::int64_t out,
                                        DType dtype) try {
  return std::make_unique<OneDnnMatMul>(rows, in, out, dtype);
} catch (const dnnl::error&) {
  return nullptr;
}

void BM_MatMul(benchmark::State& state, DType dtype) {
  const std::int64_t rows = state.range(0);
  const std::int64_t in = state.range(1);
  const std::int64_t out = state.range(2);
  const auto threads = static_cast<int>(state.range(3));
  omp_set_num_threads(threads);
  const std::unique_ptr<OneDnnMatMul> alone = MakeAlone(rows, in, out, dtype);
  WorkerPool pool(threads);
  const std::vector<float> w(static_cast<std::size_t>(in * out), 0.5F);
  const std::vector<float> x(static_cast<std::size_t>(in * rows), 0.5F);
  std::vector<float> y(static_cast<std::size_t>(rows * out));
  const MatrixSource source{w.data(), DType::kF32, out};
  const PackedMatrix weights = PackedMatrix::Pack(pool, {&source, 1}, in, dtype);
  GemmWorkspace workspace;
  std::vector<double> ours;
  std::vector<double> theirs;
  for (auto _ : state) {
    for (int block = 0; block < kBlocks; ++block) {
      if (alone != nullptr) Block([&] { alone->Run(); }, theirs);
      Block(
          [&] {
            MatMul(pool, weights, x.data(), rows, in, y.data(), out, Store::kOverwrite, workspace);
          },
          ours);
    }
    state.SetIterationTime(Fast(ours));
  }
  const double flops = 2e-9 * static_cast<double>(rows * in * out);
  state.counters["GFLOPs"] = flops / Fast(ours);
  if (alone == nullptr) return;
  state.counters["oneDNN_GFLOPs"] = flops / Fast(theirs);
  state.counters["ratio"] = Fast(theirs) / Fast(ours);
}

void Shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"rows", "in", "out", "threads"})->Iterations(1)->UseManualTime();
  bench->Unit(benchmark::kMicrosecond);
  for (const std::int64_t threads : {2, 1}) {
    for (const std::int64_t width : {512, 1024, 2048, 4096}) {
      for (const std::int64_t rows : {8, 16, 32, 64, 128}) {
        bench->Args({rows, width, width, threads});
      }
    }
    // The feed-forward layer of a small and of a large model, up and down.
    for (const std::int64_t rows : {32, 64}) {
      bench->Args({rows, 512, 2752, threads})->Args({rows, 1376, 512, threads});
    }
    bench->Args({64, 4096, 12288, threads})->Args({64, 12288, 4096, threads});
    for (const std::int64_t width : {512, 2048, 4096}) {
      bench->Args({2048, width, width, threads});
    }
  }
}

BENCHMARK_CAPTURE(BM_MatMul, f32, DType::kF32)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_MatMul, bf16, DType::kBF16)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_MatMul, int8, DType::kInt8)->Apply(Shapes);

}  // namespace
}  // namespace maskkv::kernels
