// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/step_world.h"

#include <errno.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <utility>

#include "core/engine/heap_kv.h"
#include "core/engine/prompt.h"
#include "core/model/checkpoint.h"
#include "tests/bench/timing.h"

namespace maskkv::bench {
namespace {

// `count` of the positions [0, end), ascending.
void RandomPositions(std::mt19937_64& random, std::int64_t end, std::int64_t count,
                     std::int32_t* out) {
  for (std::int64_t position = 0, left = count; left > 0; ++position) {
    const auto rest = static_cast<std::uint64_t>(end - position);
    if (random() % rest < static_cast<std::uint64_t>(left)) {
      *out++ = static_cast<std::int32_t>(position);
      --left;
    }
  }
}

void FillNormal(std::mt19937_64& random, kernels::DType dtype, std::int64_t count, std::byte* out) {
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = normal(random);
  if (dtype == kernels::DType::kF32) {
    std::copy(values.begin(), values.end(), reinterpret_cast<float*>(out));
  } else {
    kernels::ConvertToBf16(values.data(), count, reinterpret_cast<kernels::Bf16*>(out));
  }
}

}  // namespace

void Fail(const std::string& what) {
  std::fprintf(stderr, "%s: %s\n", program_invocation_short_name, what.c_str());
  std::exit(1);
}

void RequireOk(const absl::Status& status) {
  if (!status.ok()) Fail(std::string(status.message()));
}

transformer::Weights LoadWeights(const WorldOptions& options, kernels::WorkerPool& pool) {
  auto checkpoint = model::Checkpoint::Open(options.model);
  RequireOk(checkpoint.status());
  auto weights = transformer::Weights::Load(
      std::move(*checkpoint), {.compute = options.dtype, .cache_folder = options.cache_folder},
      pool);
  RequireOk(weights.status());
  for (const std::string& note : weights->origin().notes) {
    std::fprintf(stderr, "%s: %s\n", program_invocation_short_name, note.c_str());
  }
  return std::move(*weights);
}

World::World(const WorldOptions& options, kernels::WorkerPool& pool)
    : pool_(pool),
      weights_(LoadWeights(options, pool)),
      transformer_(weights_, pool, options.max_positions) {}

std::vector<std::int32_t> World::Prompt(std::int64_t tokens) const {
  std::mt19937_64 random(1);
  std::vector<std::int32_t> prompt;
  while (static_cast<std::int64_t>(prompt.size()) < tokens) {
    const auto id =
        static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(config().vocab_size));
    if (id != config().mask_id) prompt.push_back(id);
  }
  return prompt;
}

std::shared_ptr<const engine::KvView> World::Prefill(const std::vector<std::int32_t>& prompt,
                                                     std::int64_t masks, std::int64_t budget,
                                                     double* seconds) {
  const std::vector<engine::Row> rows = engine::PromptThenMasks(prompt, masks, config());
  engine::PrefillRequest request;
  request.rows = rows;
  request.plan.layer_rule = engine::LayerRule::kUniform;
  request.plan.budget = budget;
  request.kv_dtype = weights_.kv_dtype();
  auto entry = std::make_shared<engine::HeapKvEntry>();
  const double took =
      SecondsOf([&] { RequireOk(engine::Prefiller(transformer_).Run(request, *entry).status()); });
  if (seconds != nullptr) *seconds = took;
  return entry;
}

std::shared_ptr<const engine::KvView> World::RandomEntry(std::int64_t prompt_tokens,
                                                         std::int64_t budget) const {
  std::mt19937_64 random(2);
  const model::ModelConfig& c = config();
  const std::int64_t pairs = std::min(budget, prompt_tokens);
  const kernels::DType dtype = weights_.kv_dtype();
  auto entry = std::make_shared<engine::HeapKvEntry>();
  RequireOk(entry->Begin({c.layers, c.kv_heads, c.head_dim, dtype}, c.layers * c.kv_heads * pairs));
  const std::vector<std::int64_t> pairs_per_head(static_cast<std::size_t>(c.kv_heads), pairs);
  for (std::int64_t layer = 0; layer < c.layers; ++layer) {
    const auto extents = entry->AllocateLayer(layer, pairs_per_head);
    RequireOk(extents.status());
    for (const engine::HeadExtent& extent : *extents) {
      FillNormal(random, dtype, pairs * c.head_dim, extent.keys);
      FillNormal(random, dtype, pairs * c.head_dim, extent.values);
      RandomPositions(random, prompt_tokens, pairs, extent.positions);
    }
  }
  RequireOk(entry->Finish());
  return entry;
}

Stepper::Stepper(World& world, const std::vector<std::int32_t>& prompt,
                 std::shared_ptr<const engine::KvView> entry, std::int64_t rows, std::int64_t batch)
    : world_(world), batch_(batch) {
  request_.prompt_tokens = std::ssize(prompt);
  request_.params.gen_length = request_.params.block_length = request_.params.steps = rows;
  request_.params.ignore_eos = true;
  request_.params.stop_ids = {world.config().eos_id};
  request_.prompt = entry == nullptr ? prompt : engine::RecomputedTail(world.config(), prompt);
  request_.cache = std::move(entry);
}

double Stepper::Step() {
  if (decoder_ == nullptr || decoder_->running() == 0) {
    decoder_ = std::make_unique<engine::Decoder>(world_.transformer());
    for (std::int64_t i = 0; i < batch_; ++i) RequireOk(decoder_->Add(request_).status());
  }
  const transformer::OpSeconds before = world_.transformer().op_seconds();
  const double seconds = SecondsOf([&] {
    for (const engine::StepEvent& event : decoder_->Step()) RequireOk(event.status);
  });
  if (steps_++ > 0) {  // the first one may allocate
    seconds_.push_back(seconds);
    ops_.Add(world_.transformer().op_seconds());
    ops_.Add(before, -1);
  }
  return seconds;
}

}  // namespace maskkv::bench
