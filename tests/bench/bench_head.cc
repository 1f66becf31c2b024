// SPDX-License-Identifier: Apache-2.0
//
// The streamed vocabulary head beside MatMul of the same shape into a full matrix of logits (what
// the head never makes). Counters: GFLOP/s of the head, the time of the plain product, and the part
// of the head's time that reducing costs. Arguments: rows, in, vocabulary, sampled (0 arg-max, 1
// Gumbel).
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <vector>

#include "kernels/head/token_reducer.h"
#include "kernels/head/vocab_head.h"

namespace maskkv::kernels {
namespace {

constexpr int kThreads = 2;

double Seconds(std::chrono::steady_clock::time_point from) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - from).count();
}

void BM_VocabHead(benchmark::State& state, DType dtype) {
  const std::int64_t rows = state.range(0);
  const std::int64_t in = state.range(1);
  const std::int64_t vocabulary = state.range(2);
  WorkerPool pool(kThreads);
  std::vector<float> hidden(static_cast<std::size_t>(rows * in), 0.25F);
  PackedMatrix head;
  {
    const std::vector<Bf16> w(static_cast<std::size_t>(in * vocabulary), ToBf16(0.01F));
    const MatrixSource source{w.data(), DType::kBF16, vocabulary};
    head = PackedMatrix::Pack(pool, {&source, 1}, in, dtype);
  }
  const std::vector<std::int32_t> forbidden = {7};
  const ArgmaxReducer argmax(forbidden);
  const GumbelReducer gumbel(1, 1, 0.7F, forbidden);
  const LogitReducer& reducer =
      state.range(3) == 0 ? static_cast<const LogitReducer&>(argmax) : gumbel;
  std::vector<TokenChoice> choices(static_cast<std::size_t>(rows));
  std::vector<HeadRow> head_rows;
  for (std::int64_t row = 0; row < rows; ++row) {
    head_rows.push_back(
        {hidden.data() + row * in, &reducer, row, &choices[static_cast<std::size_t>(row)]});
  }
  HeadWorkspace workspace;
  GemmWorkspace plain_workspace;
  std::vector<float> logits(static_cast<std::size_t>(rows * vocabulary));
  double best = 1e9;
  double plain_best = 1e9;
  for (auto _ : state) {
    auto start = std::chrono::steady_clock::now();
    ProjectVocabulary(pool, head, head_rows, workspace);
    const double seconds = Seconds(start);
    best = std::min(best, seconds);
    state.SetIterationTime(seconds);
    start = std::chrono::steady_clock::now();
    MatMul(pool, head, hidden.data(), rows, in, logits.data(), vocabulary, Store::kOverwrite,
           plain_workspace);
    plain_best = std::min(plain_best, Seconds(start));
  }
  state.counters["GFLOPs"] = 2e-9 * static_cast<double>(rows * in * vocabulary) / best;
  state.counters["plain_product_ms"] = 1e3 * plain_best;
  state.counters["reducing_share"] = 1.0 - plain_best / best;
  state.counters["workspace_MiB"] = static_cast<double>(workspace.bytes()) / 1048576.0;
}

void Shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"rows", "in", "vocabulary", "sampled"})->UseManualTime();
  bench->Unit(benchmark::kMillisecond);
  for (const std::int64_t sampled : {0, 1}) {
    bench->Args({32, 512, 8192, sampled})->Args({64, 1024, 32000, sampled});
    bench->Args({32, 4096, 126464, sampled})->Args({128, 4096, 126464, sampled});
  }
}

BENCHMARK_CAPTURE(BM_VocabHead, f32, DType::kF32)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_VocabHead, bf16, DType::kBF16)->Apply(Shapes);

}  // namespace
}  // namespace maskkv::kernels
