// SPDX-License-Identifier: Apache-2.0
//
// Requests that fill in, through a real channel: a prompt on both sides, given text between masks,
// over a compressed cache: the engine's tokens, what the stream says of the spans, refreshes, reuse
// of an entry, what is refused.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "tests/integration/decode_harness.h"
#include "tests/support/status_matchers.h"

namespace maskkv::testing {
namespace {

class InfillServiceTest : public ::testing::Test {
 protected:
  InfillServiceTest() : harness_({}), alone_(harness_.model) {}

  // Nine masks in two spans with text before, between and behind them.
  static v1::GenerateRequest Request(double temperature = 0) {
    v1::GenerateRequest request;
    v1::DocumentQuestion& document = *request.mutable_prompt()->mutable_document();
    for (int i = 0; i < 6; ++i) {
      document.mutable_document()->append("Alice lives in Paris. Bob works in Rome. ");
    }
    document.set_question("Where does Alice live?");
    request.mutable_prompt()->mutable_suffix()->set_text("Carol lives in Oslo. Dave is in Bern.");
    v1::Canvas& canvas = *request.mutable_canvas();
    canvas.add_pieces()->set_text("Alice");
    canvas.add_pieces()->set_masks(3);
    canvas.add_pieces()->set_text("Paris. Bob");
    canvas.add_pieces()->set_masks(6);
    canvas.add_pieces()->set_text(".");
    request.mutable_sampler()->set_temperature(temperature);
    request.mutable_sampler()->set_seed(7);
    request.mutable_keep()->set_budget(6);
    return request;
  }

  std::vector<std::int32_t> CanvasOf(const v1::GenerateRequest& request) {
    return *harness_.model->TokenizeCanvas(request.canvas(), 512);
  }

  Trace Alone(const v1::GenerateRequest& request, std::uint64_t sample = 0) {
    const Around around{CanvasOf(request), harness_.model->Tokenize(request.prompt())->suffix};
    engine::GenerateParams params;
    params.gen_length = params.steps = params.block_length = std::ssize(around.canvas);
    params.temperature = request.sampler().temperature();
    params.seed = request.sampler().seed() + sample;
    params.stop_ids = harness_.model->stop_ids();
    params.whole_canvas = true;
    params.refresh_every = request.sampler().refresh_every();
    params.refresh_floor = request.sampler().refresh_floor();
    return alone_.Run(harness_.model->Tokenize(request.prompt())->ids, params,
                      request.cache() == v1::CACHE_NONE ? nullptr : &request.keep(), 1, around);
  }

  std::string ReasonFor(const v1::GenerateRequest& request) {
    return ErrorReason(harness_.Ask(request).status);
  }

  DecodeHarness harness_;
  EngineAlone alone_;
};

TEST_F(InfillServiceTest, FillsInAsTheEngineAloneDoes) {
  v1::GenerateRequest whole = Request(), samples = Request(0.8), refreshed = Request();
  whole.set_cache(v1::CACHE_NONE);
  samples.set_samples(2);
  refreshed.mutable_sampler()->set_refresh_every(2);
  v1::GenerateRequest floor = Request(0.8);
  floor.mutable_sampler()->set_refresh_floor(0.99);
  v1::GenerateRequest at_end = Request();
  at_end.mutable_prompt()->clear_suffix();
  for (const v1::GenerateRequest& request : {Request(), whole, samples, refreshed, floor, at_end}) {
    const Reply reply = harness_.Ask(request);
    ASSERT_THAT(reply.status, IsOk());
    EXPECT_EQ(reply.trace(), Alone(request));
    EXPECT_EQ(reply.steps.size(), 9U * static_cast<std::size_t>(std::max(1, request.samples())));
    if (request.samples() == 2) {
      EXPECT_EQ(reply.trace(1), Alone(request, 1));
    }
  }
  EXPECT_EQ(harness_.Ask(refreshed).finished.at(0).usage().refreshes(), 4);
  EXPECT_NE(Alone(Request()), Alone(refreshed)) << "a refresh changes what follows";
  EXPECT_NE(Alone(Request()), Alone(at_end)) << "the suffix is seen";
  const auto prompt = *harness_.model->Tokenize(Request().prompt());
  EXPECT_EQ(harness_.Ask(Request()).started.prompt_tokens(), prompt.tokens());
}

TEST_F(InfillServiceTest, TheAnswerIsTheWholeCanvasAndNamesItsSpans) {
  const v1::GenerateRequest request = Request();
  const std::vector<std::int32_t> canvas = CanvasOf(request);
  const Reply reply = harness_.Ask(request);
  ASSERT_THAT(reply.status, IsOk());
  const v1::Finished& finished = reply.finished.at(0);
  EXPECT_EQ(finished.finish_reason(), v1::FINISH_REASON_LENGTH);
  const std::vector<std::int32_t> tokens(finished.tokens().begin(), finished.tokens().end());
  ASSERT_EQ(tokens.size(), canvas.size());
  EXPECT_EQ(finished.text(), harness_.model->tokenizer()->Decode(tokens, true));
  EXPECT_EQ(reply.text(), finished.text());
  std::vector<std::int32_t> filled = canvas;
  ASSERT_EQ(finished.spans_size(), 2);
  for (const v1::Span& span : finished.spans()) {
    for (int i = 0; i < span.tokens_size(); ++i) {
      const auto position = static_cast<std::size_t>(span.position() + i);
      EXPECT_EQ(canvas.at(position), harness_.model->config().mask_id);
      filled.at(position) = span.tokens(i);
    }
    const std::vector<std::int32_t> ids(span.tokens().begin(), span.tokens().end());
    EXPECT_EQ(span.text(), harness_.model->tokenizer()->Decode(ids, true));
  }
  EXPECT_EQ(finished.spans(0).tokens_size(), 3);
  EXPECT_EQ(finished.spans(1).tokens_size(), 6);
  EXPECT_EQ(filled, tokens) << "spans and given tokens are the answer";
}

TEST_F(InfillServiceTest, AnEntryServesBothSidesOnlyOfItsOwnPrompt) {
  v1::GenerateRequest request = Request();
  const Reply first = harness_.Ask(request);
  ASSERT_THAT(first.status, IsOk());
  request.set_reuse(v1::REUSE_KEPT);
  *request.mutable_handle() = first.started.handle();
  EXPECT_EQ(harness_.Ask(request).trace(), first.trace());
  EXPECT_EQ(harness_.backends.prefills(), 1);

  // Another suffix: the document's pairs only, everything else is computed in every step.
  v1::GenerateRequest other = request;
  other.mutable_prompt()->mutable_suffix()->set_text("Erin lives in Rome.");
  const Reply reply = harness_.Ask(other);
  ASSERT_THAT(reply.status, IsOk());
  EXPECT_LT(reply.finished.at(0).usage().kept_pairs(), first.finished.at(0).usage().kept_pairs());
  EXPECT_EQ(reply.steps.size(), 9U);

  // Without a document nothing is left to serve.
  request.mutable_prompt()->set_text("Where does Alice live?");
  EXPECT_EQ(ReasonFor(request), "HANDLE_PROMPT_MISMATCH");
  // Another number of positions.
  other.mutable_canvas()->mutable_pieces(1)->set_masks(4);
  EXPECT_EQ(ReasonFor(other), "HANDLE_PROMPT_MISMATCH");
}

TEST_F(InfillServiceTest, WhatCannotBeFilledInIsRefused) {
  v1::GenerateRequest request = Request();
  request.add_stop("x");
  EXPECT_EQ(ReasonFor(request), "BAD_STOP");
  request.clear_canvas();
  EXPECT_EQ(ReasonFor(request), "BAD_STOP") << "a suffix alone fills in too";
  request = Request();
  request.mutable_sampler()->set_gen_length(9);
  EXPECT_EQ(ReasonFor(request), "BAD_SAMPLER");
  request = Request();
  request.mutable_canvas()->clear_pieces();
  EXPECT_EQ(ReasonFor(request), "BAD_CANVAS");
  request.mutable_canvas()->add_pieces()->set_text("no mask");
  EXPECT_EQ(ReasonFor(request), "BAD_CANVAS");
  request.mutable_canvas()->add_pieces()->set_masks(100'000);
  EXPECT_EQ(ReasonFor(request), "BAD_CANVAS");
  request.mutable_canvas()->mutable_pieces(1)->mutable_tokens()->add_ids(
      harness_.model->config().mask_id);
  EXPECT_EQ(ReasonFor(request), "MASK_IN_PROMPT");
  request = Request();
  request.mutable_prompt()->mutable_suffix()->mutable_tokens();
  EXPECT_EQ(ReasonFor(request), "BAD_PROMPT");
}

}  // namespace
}  // namespace maskkv::testing
