// SPDX-License-Identifier: Apache-2.0
//
// What an entry's memory costs beside the work of filling it: getting a region, the first touch of
// its pages by the writer and by a reader, and checksums.
// docs/adr/0005-no-pool-of-prefaulted-memory.md is about the ratios. Argument: MiB.
#include <benchmark/benchmark.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "core/arena/entry_index.h"
#include "core/arena/entry_writer.h"
#include "core/arena/layout.h"
#include "core/arena/plane.h"

namespace maskkv::arena {
namespace {

std::uint64_t Bytes(const benchmark::State& state) {
  return static_cast<std::uint64_t>(state.range(0)) << 20;
}

void SetBytes(benchmark::State& state) {
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(Bytes(state)));
}

template <typename T>
T ValueOrDie(absl::StatusOr<T> value) {
  if (!value.ok()) std::abort();
  return std::move(value).value();
}

// Stands for the kept pairs that a prefill gathers: a source that stays in the second-level cache.
void Fill(std::span<std::byte> memory) {
  static const std::vector<std::byte> source(std::size_t{256} << 10, std::byte{7});
  for (std::size_t at = 0; at < memory.size(); at += source.size()) {
    std::memcpy(memory.data() + at, source.data(), std::min(source.size(), memory.size() - at));
  }
  benchmark::DoNotOptimize(memory.data());
}

// memfd_create, fallocate, close.
void BM_Allocate(benchmark::State& state) {
  const auto plane = MakeMemfdPlane();
  for (auto _ : state) benchmark::DoNotOptimize(ValueOrDie(plane->Allocate(Bytes(state))));
  SetBytes(state);
}

// Writing a region whose pages are there but were never touched: a fault and a zeroed page each.
void BM_WriteFresh(benchmark::State& state) {
  const auto plane = MakeMemfdPlane();
  for (auto _ : state) {
    state.PauseTiming();
    auto region = ValueOrDie(plane->Allocate(Bytes(state)));
    auto mapping = ValueOrDie(region->Map(Access::kWrite));
    state.ResumeTiming();
    Fill(mapping.memory());
    state.PauseTiming();
    mapping.Reset();
    region.reset();
    state.ResumeTiming();
  }
  SetBytes(state);
}

// The same with all pages made in one call before.
void BM_WritePopulated(benchmark::State& state) {
  const auto plane = MakeMemfdPlane();
  for (auto _ : state) {
    state.PauseTiming();
    auto region = ValueOrDie(plane->Allocate(Bytes(state)));
    auto mapping = ValueOrDie(region->Map(Access::kWrite));
    state.ResumeTiming();
    ::madvise(mapping.memory().data(), mapping.memory().size(), MADV_POPULATE_WRITE);
    Fill(mapping.memory());
    state.PauseTiming();
    mapping.Reset();
    region.reset();
    state.ResumeTiming();
  }
  SetBytes(state);
}

// What a pool of regions would leave: pages zeroed by somebody earlier, but mapped now.
void BM_WritePooled(benchmark::State& state) {
  const auto plane = MakeMemfdPlane();
  const auto region = ValueOrDie(plane->Allocate(Bytes(state)));
  Fill(ValueOrDie(region->Map(Access::kWrite)).memory());
  for (auto _ : state) {
    auto mapping = ValueOrDie(region->Map(Access::kWrite));
    Fill(mapping.memory());
  }
  SetBytes(state);
}

// The floor: pages zeroed and mapped.
void BM_WriteWarm(benchmark::State& state) {
  const auto plane = MakeMemfdPlane();
  const auto region = ValueOrDie(plane->Allocate(Bytes(state)));
  const auto mapping = ValueOrDie(region->Map(Access::kWrite));
  Fill(mapping.memory());
  for (auto _ : state) Fill(mapping.memory());
  SetBytes(state);
}

void BM_Checksum(benchmark::State& state) {
  const auto region = ValueOrDie(MakeMemfdPlane()->Allocate(Bytes(state)));
  const auto mapping = ValueOrDie(region->Map(Access::kWrite));
  Fill(mapping.memory());
  for (auto _ : state) benchmark::DoNotOptimize(Checksum(mapping.memory()));
  SetBytes(state);
}

// A sealed entry of 32 layers and 32 heads of width 128, bf16, of about the size asked for.
struct SealedEntry {
  explicit SealedEntry(std::uint64_t bytes) {
    engine::EntryShape shape{
        .layers = 32, .kv_heads = 32, .head_dim = 128, .dtype = kernels::DType::kBF16};
    const std::int64_t pairs = static_cast<std::int64_t>(bytes) / (shape.PairBytes() * 1024);
    region = ValueOrDie(MakeMemfdPlane()->Allocate(ValueOrDie(MaxEntryBytes(shape, 1024 * pairs))));
    auto mapping = ValueOrDie(region->Map(Access::kWrite));
    EntryWriter writer(mapping.memory(), {.prompt_tokens = pairs});
    if (!writer.Begin(shape, 1024 * pairs).ok()) std::abort();
    for (std::int64_t layer = 0; layer < shape.layers; ++layer) {
      const std::vector<std::int64_t> counts(32, pairs);
      for (const engine::HeadExtent& extent : ValueOrDie(writer.AllocateLayer(layer, counts))) {
        for (std::int64_t i = 0; i < pairs; ++i) {
          extent.positions[i] = static_cast<std::int32_t>(i);
        }
      }
    }
    if (!writer.Finish().ok()) std::abort();
    const std::uint64_t used = ValueOrDie(writer.Complete(1));
    mapping.Reset();
    if (!region->Seal(used).ok()) std::abort();
  }
  std::unique_ptr<Region> region;
};

// What a reader pays for an entry: map, validate, unmap. Second argument: extents' checksums too.
void BM_MapAndValidate(benchmark::State& state) {
  const SealedEntry entry(Bytes(state));
  EntryExpectation expectation;
  expectation.verify_checksums = state.range(1) != 0;
  for (auto _ : state) {
    const auto mapping = ValueOrDie(entry.region->Map(Access::kRead));
    benchmark::DoNotOptimize(ValueOrDie(ValidateEntry(mapping.memory(), expectation)));
  }
  SetBytes(state);
}

BENCHMARK(BM_Allocate)->Arg(1)->Arg(16)->Arg(128);
BENCHMARK(BM_WriteFresh)->Arg(1)->Arg(16)->Arg(128);
BENCHMARK(BM_WritePopulated)->Arg(1)->Arg(16)->Arg(128);
BENCHMARK(BM_WritePooled)->Arg(1)->Arg(16)->Arg(128);
BENCHMARK(BM_WriteWarm)->Arg(1)->Arg(16)->Arg(128);
BENCHMARK(BM_Checksum)->Arg(1)->Arg(16)->Arg(128);
BENCHMARK(BM_MapAndValidate)->Args({16, 0})->Args({16, 1})->Args({128, 0})->Args({128, 1});

}  // namespace
}  // namespace maskkv::arena
