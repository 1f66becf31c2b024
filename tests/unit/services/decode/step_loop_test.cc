// SPDX-License-Identifier: Apache-2.0
//
// The step loop with its thread and a small model. Tests wait for what they want to see, never for
// a time to pass.
#include "services/decode/step_loop.h"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "core/base/error.h"
#include "core/engine/heap_kv.h"
#include "core/engine/prefill.h"
#include "tests/support/seed.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/core/engine/golden_case.h"

namespace maskkv::decode {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Trace = std::vector<std::tuple<std::int64_t, std::int64_t, std::int32_t, float>>;

constexpr std::int64_t kMaxPositions = 400;

// A prompt's end, as its reader saw it.
struct Answer {
  Trace trace;
  SequenceEnd end;
  std::string text;
};

void Record(const engine::StepEvent& event, Trace& trace) {
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
    const std::vector<engine::Row> rows = engine::PromptThenMasks(
        request.prompt, request.params.gen_length, model_.weights.config().mask_id);
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
      if (std::optional<SequenceEvent> event = group.Next(seconds(1))) return *std::move(event);
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

TEST_F(StepLoopTest, ManyReadersAtOnceGetWhatTheEngineAloneGives) {
  std::vector<engine::DecodeRequest> requests;
  std::vector<Trace> alone;
  for (std::uint64_t seed = 0; seed < 24; ++seed) {
    requests.push_back(Request(seed));
    alone.push_back(Alone(requests.back()));
  }
  Start();
  std::vector<Answer> answers(requests.size());
  std::vector<std::thread> readers;
  for (std::size_t reader = 0; reader < 8; ++reader) {
    readers.emplace_back([&, reader] {
      for (std::size_t i = reader; i < requests.size(); i += 8) {
        answers[i] = ReadOne(*Submit(requests[i]));
      }
    });
  }
  for (std::thread& reader : readers) reader.join();
  for (std::size_t i = 0; i < requests.size(); ++i) {
    ASSERT_TRUE(answers[i].end.status.ok()) << answers[i].end.status;
    EXPECT_EQ(answers[i].trace, alone[i]) << "request " << i;
    EXPECT_EQ(answers[i].end.rows, answers[i].end.steps * 16);
    EXPECT_EQ(answers[i].end.text, answers[i].text);
  }
}

TEST_F(StepLoopTest, SamplesOfOneEntryAreWhatTheirSeedsGiveAlone) {
  engine::DecodeRequest request = Request(1);
  std::vector<engine::DecodeRequest> samples;
  std::vector<Trace> alone;
  for (std::uint64_t i = 0; i < 3; ++i) {
    samples.push_back(request);
    samples.back().params.seed = 100 + i;
    alone.push_back(Alone(samples.back()));
  }
  Start();
  const std::map<std::size_t, Answer> answers = Read(*Submit(Spec(samples)));
  ASSERT_EQ(answers.size(), 3U);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(answers.at(i).trace, alone[i]);
  EXPECT_NE(alone[0], alone[1]);
}

TEST_F(StepLoopTest, AStopStringEndsTheSequenceEarly) {
  engine::DecodeRequest request = Request(4);
  request.params.ignore_eos = true;
  request.params.block_length = 1;  // from the left, token by token
  Start();
  const Answer whole = ReadOne(*Submit(request));
  ASSERT_GT(whole.text.size(), 8U);
  std::size_t cut = 6;  // a character's border
  while ((static_cast<unsigned char>(whole.text[cut]) & 0xC0U) == 0x80U) ++cut;
  GroupSpec spec = Spec({request});
  spec.stop = {whole.text.substr(cut, 2)};
  while ((static_cast<unsigned char>(whole.text[cut + spec.stop[0].size()]) & 0xC0U) == 0x80U) {
    spec.stop[0] += whole.text[cut + spec.stop[0].size()];
  }
  const std::string expected = whole.text.substr(0, whole.text.find(spec.stop[0]));
  const Answer stopped = ReadOne(*Submit(std::move(spec)));
  EXPECT_EQ(stopped.end.reason, EndReason::kStopString);
  EXPECT_EQ(stopped.end.text, expected);
  EXPECT_EQ(stopped.text, expected);
  EXPECT_LT(stopped.end.steps, whole.end.steps);
  EXPECT_EQ(whole.end.reason, EndReason::kLength);
}

TEST_F(StepLoopTest, ACancelledRequestGivesItsEntryBackWithinAStep) {
  Start();
  engine::DecodeRequest request = Request(0, 200);
  request.params.ignore_eos = true;
  const std::weak_ptr<const engine::KvView> entry = request.cache;
  std::atomic<bool> cancelled{false};
  GroupSpec spec = Spec({std::move(request)});
  spec.alive = [&]() -> absl::Status {
    return cancelled ? absl::CancelledError("cancelled") : absl::OkStatus();
  };
  const std::unique_ptr<SequenceGroup> group = Submit(std::move(spec));
  Next(*group);
  cancelled = true;
  const Answer answer = ReadOne(*group);
  EXPECT_EQ(answer.end.status.code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(entry.expired());
  // What was in the queue, the step under way, one more after the look.
  EXPECT_LE(answer.trace.size(), options_.event_queue + 2);
}

TEST_F(StepLoopTest, AReaderThatLeavesGivesItsEntryBack) {
  Start();
  engine::DecodeRequest request = Request(0, 200);
  const std::weak_ptr<const engine::KvView> entry = request.cache;
  std::unique_ptr<SequenceGroup> group = Submit(std::move(request));
  Next(*group);
  group.reset();
  while (!entry.expired()) std::this_thread::yield();
}

TEST_F(StepLoopTest, AReaderThatDoesNotReadStallsOnlyItselfAndIsEnded) {
  options_.event_queue = 2;
  Start();
  engine::DecodeRequest request = Request(0, 64);
  request.params.ignore_eos = true;
  const std::weak_ptr<const engine::KvView> entry = request.cache;
  GroupSpec spec = Spec({std::move(request)});
  std::atomic<bool> abandoned{false};
  spec.abandon = [&](const absl::Status& status) {
    EXPECT_EQ(ErrorReason(status), "SLOW_READER");
    abandoned = true;
  };
  const std::unique_ptr<SequenceGroup> slow = Submit(std::move(spec));
  WaitFor([](const StepLoop::State& state) { return state.counts.stalled == 1; });
  // It holds no place and nobody waits for it.
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    EXPECT_TRUE(ReadOne(*Submit(Request(seed))).end.status.ok());
  }
  EXPECT_FALSE(entry.expired());
  clock_.Advance(options_.limits.stall_limit + seconds(1));
  while (!abandoned) std::this_thread::yield();
  EXPECT_TRUE(entry.expired());
  const Answer answer = ReadOne(*slow);
  EXPECT_EQ(answer.end.status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(answer.end.steps, 2);
}

TEST_F(StepLoopTest, AReaderThatComesBackInTimeMissesNothing) {
  options_.event_queue = 1;
  engine::DecodeRequest request = Request(2);
  const Trace alone = Alone(request);
  Start();
  const std::unique_ptr<SequenceGroup> slow = Submit(std::move(request));
  WaitFor([](const StepLoop::State& state) { return state.counts.stalled == 1; });
  const Answer answer = ReadOne(*slow);
  EXPECT_TRUE(answer.end.status.ok());
  EXPECT_EQ(answer.trace, alone);
}

TEST_F(StepLoopTest, AHigherPriorityTakesThePlaceAndTheLowerOneEndsAsIfAlone) {
  options_.limits.max_running = 1;
  options_.event_queue = 200;
  engine::DecodeRequest low = Request(8, 120), high = Request(5);
  low.params.ignore_eos = true;
  const Trace low_alone = Alone(low), high_alone = Alone(high);
  Start();
  const std::unique_ptr<SequenceGroup> low_group = Submit(std::move(low));
  Next(*low_group);
  GroupSpec spec = Spec({std::move(high)});
  spec.priority = 5;
  const std::unique_ptr<SequenceGroup> high_group = Submit(std::move(spec));
  const Answer high_answer = ReadOne(*high_group);
  EXPECT_EQ(high_answer.trace, high_alone);
  const Answer low_answer = ReadOne(*low_group);
  EXPECT_TRUE(low_answer.end.status.ok());
  // The first event was read before.
  EXPECT_EQ(Trace(low_answer.trace), Trace(low_alone.begin() + 1, low_alone.end()));
}

TEST_F(StepLoopTest, ARequestThatTheDecoderRefusesEndsAloneWithItsError) {
  Start();
  engine::DecodeRequest bad = Request(3);
  bad.prompt[0] = model_.weights.config().mask_id;
  const std::unique_ptr<SequenceGroup> bad_group = Submit(std::move(bad));
  const std::unique_ptr<SequenceGroup> good_group = Submit(Request(3));
  EXPECT_EQ(ReadOne(*bad_group).end.status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(ReadOne(*good_group).end.status.ok());

  bad = Request(3);
  bad.params.gen_length = -4;
  EXPECT_EQ(loop_->Submit(Spec({std::move(bad)})).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(StepLoopTest, WaitingTooLongForAPlaceEndsASequence) {
  options_.limits.max_running = 1;
  options_.event_queue = 400;
  Start();
  engine::DecodeRequest running = Request(0, 300);
  running.params.ignore_eos = true;
  const std::unique_ptr<SequenceGroup> first = Submit(std::move(running));
  Next(*first);
  GroupSpec spec = Spec({Request(0)});
  // The loop looks at it for the first time while the place is taken, and time passes.
  bool passed = false;
  spec.alive = [&]() -> absl::Status {
    if (!passed) clock_.Advance(options_.limits.longest_wait + seconds(1));
    passed = true;
    return absl::OkStatus();
  };
  const std::unique_ptr<SequenceGroup> second = Submit(std::move(spec));
  const Answer answer = ReadOne(*second);
  EXPECT_EQ(answer.end.status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(ErrorReason(answer.end.status), "QUEUE_TIMEOUT");
  EXPECT_TRUE(answer.trace.empty());
}

TEST_F(StepLoopTest, AFullQueueRefusesAndEndsNobody) {
  options_.limits.capacity = 2;
  Start();
  engine::DecodeRequest request = Request(0);
  EXPECT_EQ(ErrorReason(loop_->Submit(Spec({request, request, request})).status()), "QUEUE_FULL");
  EXPECT_TRUE(ReadOne(*Submit(request)).end.status.ok());
}

TEST_F(StepLoopTest, TheEndOfTheLoopEndsWhatIsLeft) {
  options_.event_queue = 1;
  Start();
  engine::DecodeRequest request = Request(0, 200);
  request.params.ignore_eos = true;
  const std::unique_ptr<SequenceGroup> group = Submit(std::move(request));
  loop_.reset();
  const Answer answer = ReadOne(*group);
  EXPECT_EQ(ErrorReason(answer.end.status), "DRAINING");
}

TEST_F(StepLoopTest, RandomClientsThatComeGoAndSleepDoNotChangeEachOthersTokens) {
  options_.event_queue = 3;
  const std::uint64_t base = maskkv::testing::Seed();
  std::vector<engine::DecodeRequest> requests;
  std::vector<Trace> alone;
  for (std::uint64_t i = 0; i < 40; ++i) {
    requests.push_back(Request(base + i));
    alone.push_back(Alone(requests.back()));
  }
  Start();
  std::vector<std::thread> clients;
  std::atomic<int> whole{0};
  for (std::uint64_t client = 0; client < 8; ++client) {
    clients.emplace_back([&, client] {
      std::mt19937_64 random(base + client);
      for (std::size_t i = client; i < requests.size(); i += 8) {
        GroupSpec spec = Spec({requests[i]});
        spec.priority = static_cast<std::int32_t>(random() % 5);
        const std::unique_ptr<SequenceGroup> group = Submit(std::move(spec));
        Trace trace;
        bool left = false;
        while (!group->done() && !left) {
          const SequenceEvent event = Next(*group);
          if (const auto* update = std::get_if<StepUpdate>(&event.what)) {
            Record(update->step, trace);
          } else {
            EXPECT_TRUE(std::get<SequenceEnd>(event.what).status.ok());
          }
          if (random() % 4 == 0) std::this_thread::yield();
          left = random() % 64 == 0;
        }
        if (group->done()) ++whole;
        ASSERT_LE(trace.size(), alone[i].size());
        EXPECT_EQ(trace, Trace(alone[i].begin(),
                               alone[i].begin() + static_cast<std::ptrdiff_t>(trace.size())));
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_GT(whole, 20);
  WaitFor([](const StepLoop::State& state) {
    return state.counts.running + state.counts.waiting + state.counts.displaced +
               state.counts.stalled ==
           0;
  });
}

}  // namespace
}  // namespace maskkv::decode
