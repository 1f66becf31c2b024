// SPDX-License-Identifier: Apache-2.0
//
// The layers of a step allocate what oneDNN allocates in running their products and nothing else:
// workspaces are kept. Around them a step makes a few small lists, of events and samplers, whose
// number depends neither on the prompt nor on the pairs kept. The hooks below count every
// allocation of this process, those of libraries too.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "core/engine/decode.h"
#include "core/engine/heap_kv.h"
#include "tests/unit/core/engine/test_model.h"

namespace {

std::atomic<bool> counting{false};
std::atomic<int> allocations{0};

void Count() {
  if (counting.load(std::memory_order_relaxed)) allocations.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace

extern "C" {
void* __libc_malloc(std::size_t size);
void* __libc_calloc(std::size_t count, std::size_t size);
void* __libc_realloc(void* memory, std::size_t size);
void* __libc_memalign(std::size_t alignment, std::size_t size);

void* malloc(std::size_t size) {
  Count();
  return __libc_malloc(size);
}
void* calloc(std::size_t count, std::size_t size) {
  Count();
  return __libc_calloc(count, size);
}
void* realloc(void* memory, std::size_t size) {
  Count();
  return __libc_realloc(memory, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) {
  Count();
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** memory, std::size_t alignment, std::size_t size) {
  Count();
  *memory = __libc_memalign(alignment, size);
  return *memory == nullptr ? 12 : 0;  // ENOMEM
}
}

namespace maskkv::engine {
namespace {

constexpr std::int64_t kRows = 16;

template <typename Call>
int AllocationsOf(const Call& call) {
  allocations = 0;
  counting = true;
  call();
  counting = false;
  return allocations;
}

std::shared_ptr<const KvView> Entry(const model::ModelConfig& config, std::int64_t pairs) {
  auto entry = std::make_shared<HeapKvEntry>();
  const EntryShape shape{config.layers, config.kv_heads, config.head_dim, kernels::DType::kF32};
  EXPECT_TRUE(entry->Begin(shape, pairs * config.kv_heads * config.layers).ok());
  const std::vector<std::int64_t> counts(static_cast<std::size_t>(config.kv_heads), pairs);
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    const auto extents = entry->AllocateLayer(layer, counts);
    for (const HeadExtent& extent : *extents) {
      std::fill_n(reinterpret_cast<float*>(extent.keys), pairs * config.head_dim, 0.1F);
      std::fill_n(reinterpret_cast<float*>(extent.values), pairs * config.head_dim, 0.1F);
      std::iota(extent.positions, extent.positions + pairs, 0);
    }
  }
  EXPECT_TRUE(entry->Finish().ok());
  return entry;
}

// Allocations of each step of one request, after an equal one.
std::vector<int> AllocationsOfSteps(TestModel& model, std::int64_t pairs) {
  DecodeRequest request;
  request.prompt_tokens = pairs;
  request.params.gen_length = request.params.block_length = request.params.steps = kRows;
  request.params.ignore_eos = true;
  request.params.stop_ids = {model.weights.config().eos_id};
  request.cache = Entry(model.weights.config(), pairs);
  std::vector<int> counts;
  for (int pass = 0; pass < 2; ++pass) {
    Decoder decoder(model.transformer);
    EXPECT_TRUE(decoder.Add(request).ok());
    counts.clear();
    while (decoder.running() > 0) {
      std::vector<StepEvent> events;
      counts.push_back(AllocationsOf([&] { events = decoder.Step(); }));
      EXPECT_TRUE(events.front().status.ok());
    }
  }
  return counts;
}

// What running the layers' products takes: oneDNN makes lists of its own in each.
int AllocationsOfProducts(TestModel& model) {
  kernels::GemmWorkspace workspace;
  const model::ModelConfig& config = model.weights.config();
  const std::int64_t widest = std::max(config.hidden, 2 * config.ffn);
  kernels::AlignedBuffer<float> x(kRows * widest), y(kRows * widest);
  std::fill_n(x.data(), x.size(), 0.1F);
  const auto run = [&] {
    for (std::int64_t layer = 0; layer < config.layers; ++layer) {
      const transformer::LayerWeights& weights = model.weights.layer(layer);
      for (const kernels::PackedMatrix* matrix :
           {&weights.key_value, &weights.query, &weights.attn_out, &weights.ffn.gate_up,
            &weights.ffn.down}) {
        const bool adds = matrix == &weights.attn_out || matrix == &weights.ffn.down;
        kernels::MatMul(model.pool, *matrix, x.data(), kRows, matrix->in(), y.data(), matrix->out(),
                        adds ? kernels::Store::kAdd : kernels::Store::kOverwrite, workspace);
      }
    }
  };
  run();
  return AllocationsOf(run);
}

std::string Checkpoint(const char* name) {
  return std::string(MASKKV_SOURCE_DIR "/tests/data/golden/checkpoints/") + name;
}

TEST(StepAllocations, TheLayersOfAStepAllocateWhatTheirProductsDo) {
  TestModel model(Checkpoint("mha"), kernels::DType::kF32, 1, 256);
  transformer::Transformer& transformer = model.transformer;
  const auto rope = transformer.Rope(1, kRows);
  std::vector<std::int32_t> tokens(kRows, 1), positions(kRows);
  std::iota(positions.begin(), positions.end(), 0);
  const transformer::RopeRun run{kRows, rope.get()};
  kernels::AlignedBuffer<float> hidden(kRows * transformer.hidden());
  kernels::AlignedBuffer<float> kv(kRows * 2 * transformer.kv_width());
  const transformer::AttentionSource source{.rows = kRows,
                                            .rope = rope.get(),
                                            .keys = kv.data(),
                                            .values = kv.data() + transformer.kv_width(),
                                            .ldkv = 2 * transformer.kv_width(),
                                            .own_rows = kRows,
                                            .cached = {},
                                            .cached_dtype = kernels::DType::kF32,
                                            .log_sum_exp = nullptr};
  const auto forward = [&] {
    transformer.Embed(tokens, hidden.data());
    for (std::int64_t layer = 0; layer < transformer.config().layers; ++layer) {
      transformer.ProjectKeysValues(layer, hidden.data(), kRows, positions.data(), {&run, 1},
                                    kv.data());
      transformer.Advance(layer, hidden.data(), kRows, positions.data(), {&source, 1});
    }
  };
  forward();
  EXPECT_EQ(AllocationsOf(forward), AllocationsOfProducts(model));
}

TEST(StepAllocations, AStepAllocatesAFewListsWhateverIsKept) {
  TestModel model(Checkpoint("mha"), kernels::DType::kF32, 1, 256);
  const std::vector<int> few = AllocationsOfSteps(model, 4);
  const std::vector<int> many = AllocationsOfSteps(model, 200);
  EXPECT_EQ(few, many);
  // Lists grow with what is decided in a step, and the masks get fewer: no step makes more than the
  // first one.
  EXPECT_EQ(*std::ranges::max_element(few), few.front()) << testing::PrintToString(few);
}

}  // namespace
}  // namespace maskkv::engine
