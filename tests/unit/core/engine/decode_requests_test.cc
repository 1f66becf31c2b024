// SPDX-License-Identifier: Apache-2.0
//
// What services ask of the decoder: another question over a document's entry, provisional
// predictions, pauses. None of it changes a token, bit for bit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <random>
#include <tuple>

#include "core/engine/decode.h"
#include "core/engine/heap_kv.h"
#include "core/engine/prefill.h"
#include "core/engine/prefix_view.h"
#include "tests/support/seed.h"
#include "tests/unit/core/engine/test_model.h"

namespace maskkv::engine::decode_requests_test {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

// (step, position, token, confidence bits, log-probability bits), in order.
using Trace =
    std::vector<std::tuple<std::int64_t, std::int64_t, std::int32_t, std::uint32_t, std::uint32_t>>;

void Record(std::int64_t step, const std::vector<Prediction>& predictions, Trace& trace) {
  for (const Prediction& p : predictions) {
    trace.emplace_back(step, p.position, p.token, std::bit_cast<std::uint32_t>(p.confidence),
                       std::bit_cast<std::uint32_t>(p.log_probability));
  }
}

class DecodeRequestsTest : public ::testing::Test {
 protected:
  DecodeRequestsTest()
      : model_(std::string(MASKKV_SOURCE_DIR) + "/tests/data/golden/checkpoints/gqa",
               kernels::DType::kF32, 2, 400) {
    for (std::int32_t i = 0; i < 40; ++i) prompt_.push_back((7 * i) % 90);
  }
  const model::ModelConfig& config() const { return model_.weights.config(); }

  DecodeRequest Request() const {
    DecodeRequest request;
    request.prompt_tokens = std::ssize(prompt_);
    request.params.gen_length = 12;
    request.params.block_length = 4;
    request.params.steps = 6;
    request.params.stop_ids = {config().eos_id};
    request.params.ignore_eos = true;
    return request;
  }

  // Requests of twelve kinds: without an entry, with one, with one of a document; greedy or
  // sampled.
  DecodeRequest Kind(std::uint64_t kind) {
    DecodeRequest request = Request();
    request.params.temperature = kind % 2 == 0 ? 0.0 : 0.8;
    request.params.seed = kind;
    request.params.block_length = kind % 4 < 2 ? 4 : 12;
    if (kind % 3 == 0) {
      request.prompt = prompt_;
      return request;
    }
    request.cache = Entry();
    if (kind % 3 == 2) {
      request.cache = std::make_shared<PrefixView>(request.cache, 25);
      request.prompt.assign(prompt_.begin() + 25, prompt_.end());
    }
    return request;
  }

  std::shared_ptr<const KvView> Entry() {
    const std::vector<Row> rows = PromptThenMasks(prompt_, 12, config());
    PrefillRequest request;
    request.rows = rows;
    request.plan.layer_rule = LayerRule::kUniform;
    request.plan.budget = 20;
    auto entry = std::make_shared<HeapKvEntry>();
    EXPECT_TRUE(Prefiller(model_.transformer).Run(request, *entry).ok());
    return entry;
  }

  std::vector<StepEvent> Run(DecodeRequest request) {
    Decoder decoder(model_.transformer);
    const auto id = decoder.Add(std::move(request));
    EXPECT_TRUE(id.ok()) << id.status();
    std::vector<StepEvent> events;
    while (decoder.running() > 0) {
      events.push_back(decoder.Step().front());
      EXPECT_TRUE(events.back().status.ok()) << events.back().status;
      decoder.CheckInvariants();
    }
    return events;
  }

  Trace Committed(DecodeRequest request) {
    Trace trace;
    for (const StepEvent& event : Run(std::move(request))) {
      Record(event.step, event.committed, trace);
    }
    return trace;
  }

  std::string AddError(DecodeRequest request) {
    const absl::Status status = Decoder(model_.transformer).Add(std::move(request)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return std::string(status.message());
  }

  TestModel model_;
  std::vector<std::int32_t> prompt_;
};

TEST_F(DecodeRequestsTest, APromptThatNothingServesIsDecodedAsWithoutACache) {
  DecodeRequest recomputed = Request();
  recomputed.prompt = prompt_;
  const Trace expected = Committed(recomputed);
  recomputed.cache = std::make_shared<PrefixView>(Entry(), 0);
  EXPECT_EQ(Committed(recomputed), expected);
}

TEST_F(DecodeRequestsTest, EventsCountTheRowsOfTheRequest) {
  DecodeRequest request = Request();
  request.cache = Entry();
  for (const StepEvent& event : Run(request)) EXPECT_EQ(event.rows, 12);
  request.cache = std::make_shared<PrefixView>(request.cache, 31);
  request.prompt.assign(prompt_.begin() + 31, prompt_.end());
  for (const StepEvent& event : Run(request)) EXPECT_EQ(event.rows, 9 + 12);
  request.cache = nullptr;
  request.prompt = prompt_;
  for (const StepEvent& event : Run(request)) EXPECT_EQ(event.rows, 40 + 12);
}

TEST_F(DecodeRequestsTest, TheQuestionThatIsRecomputedDecidesTheAnswer) {
  DecodeRequest request = Request();
  request.cache = std::make_shared<PrefixView>(Entry(), 30);
  request.prompt.assign(prompt_.begin() + 30, prompt_.end());
  const Trace first = Committed(request);
  std::ranges::reverse(request.prompt);
  EXPECT_NE(Committed(request), first);
}

TEST_F(DecodeRequestsTest, RefusesPairsWhereRowsAreRecomputed) {
  DecodeRequest request = Request();
  request.cache = Entry();
  request.prompt.assign(prompt_.begin() + 5, prompt_.end());
  EXPECT_THAT(AddError(request),
              HasSubstr("expected pairs before position 5, which is recomputed"));
  request.prompt = {};
  request.prompt_tokens = 20;
  EXPECT_THAT(AddError(request), HasSubstr("expected pairs before position 20"));
  request.prompt_tokens = 0;
  EXPECT_THAT(AddError(request), HasSubstr("expected pairs before position 0"));
}

TEST_F(DecodeRequestsTest, RefusesRecomputedTokensThatAreNone) {
  DecodeRequest request = Request();
  request.cache = std::make_shared<PrefixView>(Entry(), 30);
  request.prompt = {1, 2, config().mask_id};
  EXPECT_THAT(AddError(request), HasSubstr("position 39: expected no mask token"));
  request.prompt = {1, -1, 2};
  EXPECT_THAT(AddError(request), HasSubstr("position 38: expected an id from 0"));
  request.prompt.assign(41, 1);
  EXPECT_THAT(AddError(request), HasSubstr("prompt: expected at most prompt_tokens 40 ids"));
  request.prompt = {1};
  request.prompt_tokens = 389;
  EXPECT_THAT(AddError(request), HasSubstr("prompt_tokens"));
}

TEST_F(DecodeRequestsTest, ProvisionalPredictionsChangeNoCommittedBit) {
  for (std::uint64_t kind = 0; kind < 12; ++kind) {
    DecodeRequest request = Kind(kind);
    const Trace expected = Committed(request);
    request.provisional = true;
    EXPECT_EQ(Committed(request), expected) << "kind " << kind;
  }
}

TEST_F(DecodeRequestsTest, ProvisionalPredictionsAreThoseOfEveryPositionStillMasked) {
  for (const std::uint64_t kind : {0U, 1U, 2U}) {
    DecodeRequest request = Kind(kind);
    for (const StepEvent& event : Run(request)) EXPECT_THAT(event.provisional, IsEmpty());
    request.provisional = true;
    Decoder decoder(model_.transformer);
    const auto id = decoder.Add(request);
    ASSERT_TRUE(id.ok());
    while (decoder.running() > 0) {
      const StepEvent event = decoder.Step().front();
      std::vector<std::int64_t> masked, told;
      for (std::int64_t i = 0; i < 12; ++i) {
        if (decoder.Find(*id)->masked(i)) masked.push_back(i);
      }
      for (const Prediction& p : event.provisional) told.push_back(p.position);
      EXPECT_EQ(told, masked);
    }
  }
}

TEST_F(DecodeRequestsTest, ProvisionalPredictionsAreWhatOneBlockOfAllMasksWouldPredict) {
  for (const std::uint64_t kind : {0U, 1U, 2U, 5U}) {
    std::vector<std::map<std::int64_t, Trace>> predictions;
    for (const std::int64_t block : {4, 6, 12}) {
      DecodeRequest request = Kind(kind);
      request.params.block_length = block;
      request.provisional = true;
      const StepEvent event = Run(request).front();
      std::map<std::int64_t, Trace>& of_position = predictions.emplace_back();
      for (const auto* list : {&event.committed, &event.provisional}) {
        for (const Prediction& p : *list) Record(0, {p}, of_position[p.position]);
      }
      EXPECT_EQ(of_position.size(), 12U);
    }
    EXPECT_EQ(predictions[0], predictions[2]) << "kind " << kind;
    EXPECT_EQ(predictions[1], predictions[2]) << "kind " << kind;
  }
}

TEST_F(DecodeRequestsTest, LogProbabilitiesAreTheLogarithmsOfConfidences) {
  DecodeRequest request = Kind(1);
  request.provisional = true;
  request.params.temperature = 30;  // improbable tokens too
  for (const StepEvent& event : Run(request)) {
    for (const auto* list : {&event.committed, &event.provisional}) {
      for (const Prediction& p : *list) {
        EXPECT_LE(p.log_probability, 0);
        const double log = std::log(static_cast<double>(p.confidence));
        EXPECT_NEAR(p.log_probability, log, 0x1p-23 * (1 + std::abs(log)));
      }
    }
  }
}

TEST_F(DecodeRequestsTest, APausedRequestTakesNoStepAndLosesNothing) {
  Decoder decoder(model_.transformer);
  const auto id = decoder.Add(Kind(1));
  ASSERT_TRUE(id.ok());
  ASSERT_TRUE(decoder.SetPaused(*id, true).ok());
  EXPECT_EQ(decoder.running(), 0);
  EXPECT_THAT(decoder.Step(), IsEmpty());
  ASSERT_TRUE(decoder.SetPaused(*id, true).ok());
  ASSERT_TRUE(decoder.SetPaused(*id, false).ok());
  EXPECT_EQ(decoder.running(), 1);
  EXPECT_EQ(decoder.Step().front().step, 0);
  EXPECT_EQ(decoder.SetPaused(*id + 1, true).code(), absl::StatusCode::kNotFound);
}

TEST_F(DecodeRequestsTest, PausesChangeNoBitOfAnyRequest) {
  const std::uint64_t seed = maskkv::testing::Seed();
  std::mt19937_64 random(seed);
  std::map<RequestId, Trace> expected, batched;
  Decoder decoder(model_.transformer);
  std::vector<RequestId> ids;
  for (std::uint64_t kind = 0; kind < 6; ++kind) {
    DecodeRequest request = Kind(kind);
    request.provisional = kind % 2 == 0;
    const auto id = decoder.Add(request);
    ASSERT_TRUE(id.ok()) << id.status();
    ids.push_back(*id);
    expected[*id] = Committed(request);
  }
  const auto unfinished = [&] {
    return std::ranges::any_of(ids, [&](RequestId id) { return !decoder.Find(id)->finished(); });
  };
  while (unfinished()) {
    std::map<RequestId, bool> paused;
    for (const RequestId id : ids) {
      paused[id] = random() % 2 == 0;
      ASSERT_TRUE(decoder.SetPaused(id, paused[id]).ok());
    }
    for (const StepEvent& event : decoder.Step()) {
      EXPECT_FALSE(paused[event.request]);
      Record(event.step, event.committed, batched[event.request]);
    }
    decoder.CheckInvariants();
  }
  EXPECT_EQ(batched, expected) << "seed " << seed;
}

}  // namespace
}  // namespace maskkv::engine::decode_requests_test
