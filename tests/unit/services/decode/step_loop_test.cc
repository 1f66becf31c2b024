// SPDX-License-Identifier: Apache-2.0
//
// What the loop makes of sequences: the engine's tokens, stop strings, places, ends.
#include "services/decode/step_loop.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <thread>
#include <vector>

#include "core/base/error.h"
#include "tests/unit/services/decode/step_loop_fixture.h"

namespace maskkv::decode {
namespace {

using std::chrono::seconds;

TEST_F(StepLoopTest, ManyReadersAtOnceGetWhatTheEngineAloneGives) {
  std::vector<engine::DecodeRequest> requests;
  std::vector<Trace> alone;
  for (std::uint64_t seed = 0; seed < 24; ++seed) {
    requests.push_back(Request(seed));
    if (seed % 5 < 2) requests.back().params.response_every = 3;
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
    const SequenceEnd& end = answers[i].end;
    EXPECT_EQ(end.rows + end.reused_rows, end.steps * 16);
    const engine::DecodeRequest& request = requests[i];
    const bool caches = request.params.caches_response();
    const auto rows = static_cast<std::int64_t>(request.prompt.size()) + 16;
    EXPECT_EQ(end.response_cache_bytes,
              caches ? engine::ResponseCache::BytesOf(model_.weights.config(), rows) : 0);
    if (request.cache != nullptr) {
      EXPECT_EQ(end.reused_rows > 0, caches && end.steps > 1);
    }
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

}  // namespace
}  // namespace maskkv::decode
