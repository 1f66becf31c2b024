// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/step_rates.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/base/aligned_buffer.h"
#include "tests/bench/onednn_matmul.h"
#include "tests/bench/step_loops.h"
#include "tests/bench/timing.h"

namespace maskkv::bench {
namespace {

using kernels::AlignedBuffer;

constexpr double kTrySeconds = 0.5;
constexpr int kLeastTries = 3;

// The most of `work` a second over some calls, the first one left out.
template <typename Call>
double BestRate(double work, const Call& call) {
  call();
  double best = 0;
  const Clock::time_point start = Clock::now();
  for (int i = 0; i < kLeastTries || Since(start) < kTrySeconds; ++i) {
    best = std::max(best, work / call());
  }
  return best;
}

void FillNormal(std::int64_t seed, bool rounded, AlignedBuffer<float>& values) {
  std::mt19937_64 random(static_cast<std::uint64_t>(seed));
  std::normal_distribution<float> normal;
  for (float& value : values.span()) value = normal(random);
  if (rounded) kernels::RoundToBf16InPlace(values.data(), values.size());
}

}  // namespace

double GemmRate(std::int64_t rows, std::int64_t in, std::int64_t out, kernels::DType dtype) {
  kernels::OneDnnMatMul product(rows, in, out, kernels::OneDnnType(dtype));
  return BestRate(2.0 * static_cast<double>(rows * in * out),
                  [&] { return SecondsOf([&] { product.Run(); }); });
}

double AttentionRate(World& world, const AttentionLoad& load) {
  transformer::Transformer& transformer = world.transformer();
  const std::int64_t width = transformer.hidden(), ld = 2 * transformer.kv_width();
  const bool narrow = world.dtype() == kernels::DType::kBF16;
  AlignedBuffer<float> input(load.queries * width), hidden(load.queries * width);
  AlignedBuffer<float> kv(load.own_rows * ld);
  FillNormal(3, false, input);
  FillNormal(4, narrow, kv);
  const std::int64_t positions_end = load.own_rows + load.pairs;
  std::vector<std::int32_t> positions(static_cast<std::size_t>(load.queries));
  std::iota(positions.begin(), positions.end(),
            static_cast<std::int32_t>(positions_end - load.queries));
  const auto rope = transformer.Rope(1, positions_end);
  const auto entry = load.pairs == 0 ? nullptr : world.RandomEntry(load.pairs, load.pairs);
  transformer::AttentionSource source{
      .rows = load.queries,
      .rope = rope.get(),
      .keys = kv.data(),
      .values = kv.data() + transformer.kv_width(),
      .ldkv = ld,
      .own_rows = load.own_rows,
      .cached = entry == nullptr ? std::span<const kernels::CachedHead>() : entry->Layer(0),
      .cached_dtype = entry == nullptr ? kernels::DType::kF32 : entry->shape().dtype,
      .log_sum_exp = nullptr};
  const double work = 4.0 * static_cast<double>(load.queries * (load.own_rows + load.pairs)) *
                      static_cast<double>(transformer.query_width());
  return BestRate(work, [&] {
    std::copy_n(input.data(), input.size(), hidden.data());
    const double before = transformer.op_seconds().attention;
    transformer.Advance(0, hidden.data(), load.queries, positions.data(), {&source, 1});
    return transformer.op_seconds().attention - before;
  });
}

double ExpRate(kernels::WorkerPool& pool) {
  constexpr std::int64_t kCount = 4096, kItems = 512;  // a worker's arrays stay in its first cache
  AlignedBuffer<float> x(kCount * pool.threads()), y(kCount * pool.threads());
  FillNormal(5, false, x);
  return BestRate(static_cast<double>(kCount * kItems), [&] {
    return SecondsOf([&] {
      pool.ParallelFor(kItems, [&](std::int64_t, int worker) {
        ExpAll(x.data() + worker * kCount, kCount, y.data() + worker * kCount);
      });
    });
  });
}

double TriadRate(kernels::WorkerPool& pool) {
  constexpr std::int64_t kCount = std::int64_t{1} << 25, kItems = 64;
  AlignedBuffer<float> a(kCount), b(kCount), c(kCount);
  for (AlignedBuffer<float>* array : {&a, &b, &c}) {
    std::fill(array->span().begin(), array->span().end(), 1.0F);
  }
  return BestRate(3.0 * sizeof(float) * static_cast<double>(kCount), [&] {
    return SecondsOf([&] {
      pool.ParallelFor(kItems, [&](std::int64_t item, int) {
        const std::int64_t begin = item * (kCount / kItems);
        Triad(b.data() + begin, c.data() + begin, kCount / kItems, a.data() + begin);
      });
    });
  });
}

}  // namespace maskkv::bench
