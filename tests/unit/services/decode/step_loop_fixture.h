// SPDX-License-Identifier: Apache-2.0
//
// A step loop with its thread and a small model, and readers of its groups. Tests wait for what
// they want to see, never for a time to pass.
#ifndef MASKKV_TESTS_UNIT_SERVICES_DECODE_STEP_LOOP_FIXTURE_H_
#define MASKKV_TESTS_UNIT_SERVICES_DECODE_STEP_LOOP_FIXTURE_H_

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "core/engine/heap_kv.h"
#include "core/engine/prefill.h"
#include "services/decode/step_loop.h"
#include "tests/unit/core/engine/test_model.h"

namespace maskkv::decode {

using Trace = std::vector<std::tuple<std::int64_t, std::int64_t, std::int32_t, float>>;

inline constexpr std::int64_t kMaxPositions = 400;

// A prompt's end, as its reader saw it.
struct Answer {
  Trace trace;
  SequenceEnd end;
  std::string text;
};

inline void Record(const engine::StepEvent& event, Trace& trace) {
  for (const engine::Prediction& prediction : event.committed) {
    trace.emplace_back(event.step, prediction.position, prediction.token, prediction.confidence);
  }
}

class StepLoopTest : public ::testing::Test {
 protected:
  StepLoopTest()
      : model_(MASKKV_SOURCE_DIR "/tests/data/golden/checkpoints/mha", kernels::DType::kF32, 1,
               kMaxPositions),
        tokenizer_(*model::Tokenizer::Load(MASKKV_SOURCE_DIR "/tests/data/tokenizer/gpt2")) {
    options_.max_positions = kMaxPositions;
    options_.limits.max_running = 4;
    options_.event_queue = 8;
  }

  void Start() {
    loop_ =
        std::make_unique<StepLoop>(model_.weights, &tokenizer_, options_, StepMetrics(), clock_);
  }

  engine::DecodeRequest Request(std::uint64_t seed, std::int64_t gen_length = 16) {
    std::mt19937_64 random(seed);
    engine::DecodeRequest request;
    for (std::uint64_t n = 5 + random() % 60; n > 0; --n) {
      request.prompt.push_back(static_cast<std::int32_t>(random() % 90));
    }
    request.prompt_tokens = static_cast<std::int64_t>(request.prompt.size());
    request.params.gen_length = gen_length;
    request.params.block_length = gen_length / 2;
    request.params.steps = gen_length;
    request.params.temperature = seed % 2 == 0 ? 0 : 0.8;
    request.params.seed = seed;
    request.params.stop_ids = {model_.weights.config().eos_id};
    request.params.ignore_eos = seed % 3 != 0;
    if (seed % 4 == 3) return request;
    request.cache = Entry(request, seed);
    request.prompt.clear();
    return request;
  }

  std::shared_ptr<const engine::KvView> Entry(const engine::DecodeRequest& request,
                                              std::uint64_t seed) {
    const std::vector<engine::Row> rows =
        engine::PromptThenMasks(request.prompt, request.params.gen_length, model_.weights.config());
    engine::PrefillRequest prefill;
    prefill.rows = rows;
    prefill.plan.selection = seed % 4 == 1   ? engine::Selection::kFull
                             : seed % 4 == 2 ? engine::Selection::kRandom
                                             : engine::Selection::kMaskKv;
    prefill.plan.layer_rule = engine::LayerRule::kUniform;
    prefill.plan.budget = 6;
    auto entry = std::make_shared<engine::HeapKvEntry>();
    EXPECT_TRUE(engine::Prefiller(model_.transformer).Run(prefill, *entry).ok());
    return entry;
  }

  Trace Alone(engine::DecodeRequest request) {
    engine::Decoder decoder(model_.transformer);
    EXPECT_TRUE(decoder.Add(std::move(request)).ok());
    Trace trace;
    while (decoder.running() > 0) Record(decoder.Step().front(), trace);
    return trace;
  }

  GroupSpec Spec(std::vector<engine::DecodeRequest> sequences) {
    GroupSpec spec;
    spec.sequences = std::move(sequences);
    return spec;
  }
  std::unique_ptr<SequenceGroup> Submit(GroupSpec spec) {
    absl::StatusOr<std::unique_ptr<SequenceGroup>> group = loop_->Submit(std::move(spec));
    EXPECT_TRUE(group.ok()) << group.status();
    return std::move(group).value();
  }
  std::unique_ptr<SequenceGroup> Submit(engine::DecodeRequest request) {
    return Submit(Spec({std::move(request)}));
  }

  static SequenceEvent Next(SequenceGroup& group) {
    while (true) {
      if (std::optional<SequenceEvent> event = group.Next(std::chrono::seconds(1)))
        return *std::move(event);
    }
  }
  // Reads to the end.
  static std::map<std::size_t, Answer> Read(SequenceGroup& group) {
    std::map<std::size_t, Answer> answers;
    while (!group.done()) {
      SequenceEvent event = Next(group);
      Answer& answer = answers[event.sequence];
      if (auto* update = std::get_if<StepUpdate>(&event.what)) {
        Record(update->step, answer.trace);
        answer.text += update->text;
      } else {
        answer.end = std::get<SequenceEnd>(std::move(event.what));
      }
    }
    return answers;
  }
  static Answer ReadOne(SequenceGroup& group) { return Read(group)[0]; }

  void WaitFor(const std::function<bool(const StepLoop::State&)>& wanted) {
    while (!wanted(loop_->state())) std::this_thread::yield();
  }

  engine::TestModel model_;
  const model::Tokenizer tokenizer_;
  ManualClock clock_;
  StepLoopOptions options_;
  std::unique_ptr<StepLoop> loop_;
};

}  // namespace maskkv::decode

#endif  // MASKKV_TESTS_UNIT_SERVICES_DECODE_STEP_LOOP_FIXTURE_H_
