// SPDX-License-Identifier: Apache-2.0
//
// What answers are, through a real channel: tokens, texts, samples, reuse.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <thread>
#include <vector>

#include "core/base/error.h"
#include "tests/integration/decode_harness.h"
#include "tests/support/status_matchers.h"

namespace maskkv::testing {
namespace {

using ::testing::IsEmpty;
using ::testing::Not;

class GenerateTest : public ::testing::Test {
 protected:
  GenerateTest() : harness_({}), alone_(harness_.model) {}

  // A request that differs with `seed` in everything that users differ in.
  static v1::GenerateRequest Request(std::uint64_t seed) {
    v1::GenerateRequest request;
    v1::DocumentQuestion& document = *request.mutable_prompt()->mutable_document();
    for (std::uint64_t i = 0; i < 6 + seed % 5; ++i) {
      document.mutable_document()->append("Alice lives in Paris. Bob works in Rome. ");
    }
    document.set_question(seed % 2 == 0 ? "Where does Alice live?" : "Where does Bob work?");
    v1::Sampler& sampler = *request.mutable_sampler();
    sampler.set_gen_length(16);
    sampler.set_temperature(seed % 3 == 0 ? 0.0 : 0.9);
    sampler.set_seed(seed);
    sampler.set_ignore_eos(seed % 2 == 0);
    switch (seed % 4) {
      case 0:
        request.set_cache(v1::CACHE_NONE);
        break;
      case 1:
        request.mutable_keep()->set_selection(v1::SELECTION_FULL);
        break;
      case 2:
        request.mutable_keep()->set_selection(v1::SELECTION_RANDOM);
        request.mutable_keep()->set_random_seed(seed);
        break;
      default:
        break;
    }
    return request;
  }

  std::vector<std::int32_t> Ids(const v1::GenerateRequest& request) {
    return harness_.model->Tokenize(request.prompt())->ids;
  }

  Trace Alone(const v1::GenerateRequest& request, std::uint64_t sample = 0, double rope_scale = 1) {
    engine::GenerateParams params;
    params.gen_length = params.steps = request.sampler().gen_length();
    params.block_length = 8;
    params.temperature = request.sampler().temperature();
    params.seed = request.sampler().seed() + sample;
    params.ignore_eos = request.sampler().ignore_eos();
    params.stop_ids = harness_.model->stop_ids();
    return alone_.Run(Ids(request), params,
                      request.cache() == v1::CACHE_NONE ? nullptr : &request.keep(), rope_scale);
  }

  void ExpectNothingLeased() {
    while (harness_.backends.leased() != 0) std::this_thread::yield();
  }

  DecodeHarness harness_;
  EngineAlone alone_;
};

TEST_F(GenerateTest, EightClientsAtOnceGetWhatTheEngineAloneGives) {
  constexpr std::uint64_t kRequests = 24;
  std::vector<Reply> replies(kRequests);
  std::vector<std::thread> clients;
  for (std::uint64_t client = 0; client < 8; ++client) {
    clients.emplace_back([&, client] {
      for (std::uint64_t i = client; i < kRequests; i += 8) replies[i] = harness_.Ask(Request(i));
    });
  }
  for (std::thread& client : clients) client.join();
  for (std::uint64_t i = 0; i < kRequests; ++i) {
    ASSERT_THAT(replies[i].status, IsOk());
    EXPECT_EQ(replies[i].trace(), Alone(Request(i))) << "request " << i;
  }
  ExpectNothingLeased();
}

TEST_F(GenerateTest, AnAnswerTellsWhatItWasMadeOfAndWhatItCost) {
  const v1::GenerateRequest request = Request(3);
  const Reply reply = harness_.Ask(request);
  ASSERT_THAT(reply.status, IsOk());
  const auto tokens = static_cast<std::int64_t>(Ids(request).size());
  EXPECT_THAT(reply.started.request_id(), Not(IsEmpty()));
  EXPECT_EQ(reply.started.prompt_tokens(), tokens);
  EXPECT_GT(reply.started.handle().entry_id(), 0U);
  EXPECT_EQ(reply.started.provenance().model_fingerprint(), harness_.model->fingerprint());
  EXPECT_EQ(reply.started.provenance().plan_generation(), 3U);
  const v1::Finished& finished = reply.finished.at(0);
  EXPECT_EQ(finished.text(), reply.text());
  EXPECT_EQ(
      finished.text(),
      harness_.model->tokenizer()->Decode(
          std::vector<std::int32_t>(finished.tokens().begin(), finished.tokens().end()), true));
  const v1::Usage& usage = finished.usage();
  EXPECT_EQ(usage.prompt_tokens(), tokens);
  EXPECT_EQ(usage.answer_tokens(), finished.tokens_size());
  EXPECT_EQ(usage.steps(), static_cast<std::int64_t>(reply.steps.size()));
  EXPECT_EQ(usage.rows(), usage.steps() * 16);
  EXPECT_EQ(usage.kept_pairs(), reply.started.kept().pairs());
  EXPECT_GT(usage.entry_bytes(), 0U);
  EXPECT_GT(usage.full_bytes(), 0U);
  EXPECT_GT(finished.timings().prefill_ms(), 0);
  EXPECT_GE(finished.timings().total_ms(), finished.timings().decode_ms());
}

TEST_F(GenerateTest, LogProbabilitiesAreThoseOfTheConfidences) {
  v1::GenerateRequest request = Request(4);
  const Reply reply = harness_.Ask(request);
  ASSERT_THAT(reply.status, IsOk());
  for (const v1::Step& step : reply.steps) {
    for (const v1::Token& token : step.committed()) {
      EXPECT_NEAR(token.log_probability(), std::log(static_cast<double>(token.confidence())),
                  1e-5 + 1e-5 * std::abs(token.log_probability()));
    }
  }
}

TEST_F(GenerateTest, ProvisionalTokensAreTheOtherMasksAndChangeNothing) {
  v1::GenerateRequest request = Request(2);
  const Reply plain = harness_.Ask(request);
  request.set_provisional(true);
  const Reply told = harness_.Ask(request);
  ASSERT_THAT(told.status, IsOk());
  EXPECT_EQ(told.trace(), plain.trace());
  for (const v1::Step& step : plain.steps) EXPECT_EQ(step.provisional_size(), 0);
  std::int64_t committed = 0;
  for (const v1::Step& step : told.steps) {
    committed += step.committed_size();
    EXPECT_EQ(step.provisional_size(), 16 - committed);
  }
}

TEST_F(GenerateTest, SamplesShareOnePrefillAndAreWhatTheirSeedsGive) {
  v1::GenerateRequest request = Request(1);
  request.mutable_sampler()->set_temperature(1.5);
  request.set_samples(3);
  const Reply reply = harness_.Ask(request);
  ASSERT_THAT(reply.status, IsOk());
  ASSERT_EQ(reply.finished.size(), 3U);
  EXPECT_EQ(harness_.backends.prefills(), 1);
  for (int sample = 0; sample < 3; ++sample) {
    EXPECT_EQ(reply.trace(sample), Alone(request, static_cast<std::uint64_t>(sample)));
    EXPECT_EQ(reply.finished.at(sample).text(), reply.text(sample));
  }
}

TEST_F(GenerateTest, AStopStringEndsTheAnswerBeforeIt) {
  v1::GenerateRequest request = Request(2);
  request.mutable_sampler()->set_block_length(1);
  request.mutable_sampler()->set_temperature(3);  // texts of all kinds
  const Reply whole = harness_.Ask(request);
  ASSERT_THAT(whole.status, IsOk());
  const std::string text = whole.finished.at(0).text();
  ASSERT_GT(text.size(), 4U);
  std::size_t at = text.size() / 2;  // a character's border
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80U) --at;
  std::size_t end = at + 1;
  while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) ++end;
  const std::string stop = text.substr(at, end - at);
  request.add_stop()->assign(stop);
  const Reply stopped = harness_.Ask(request);
  ASSERT_THAT(stopped.status, IsOk());
  const v1::Finished& finished = stopped.finished.at(0);
  EXPECT_EQ(finished.finish_reason(), v1::FINISH_REASON_STOP_STRING);
  EXPECT_EQ(finished.text(), text.substr(0, text.find(stop)));
  EXPECT_EQ(stopped.text(), finished.text());
  EXPECT_LE(stopped.steps.size(), whole.steps.size());
}

TEST_F(GenerateTest, TheSamePromptUsesAKeptEntryWholeAndGetsTheSameTokens) {
  v1::GenerateRequest request = Request(3);
  request.set_keep_entry_ms(60'000);
  const Reply first = harness_.Ask(request);
  ASSERT_THAT(first.status, IsOk());
  request.set_reuse(v1::REUSE_KEPT);
  *request.mutable_handle() = first.started.handle();
  const Reply again = harness_.Ask(request);
  ASSERT_THAT(again.status, IsOk());
  EXPECT_EQ(harness_.backends.prefills(), 1);
  EXPECT_EQ(again.trace(), first.trace());
  EXPECT_FALSE(again.started.has_kept());
  EXPECT_EQ(again.started.handle().entry_id(), first.started.handle().entry_id());
  EXPECT_EQ(again.finished.at(0).timings().prefill_ms(), 0);
  EXPECT_EQ(again.finished.at(0).usage().kept_pairs(), first.finished.at(0).usage().kept_pairs());
  EXPECT_EQ(again.started.provenance().entry_digest().size(), 64U);
}

TEST_F(GenerateTest, AnotherQuestionUsesTheDocumentsPairsOrVotesAgain) {
  v1::GenerateRequest request = Request(3);
  request.mutable_keep()->set_selection(v1::SELECTION_FULL);
  const Reply first = harness_.Ask(request);
  ASSERT_THAT(first.status, IsOk());
  request.mutable_prompt()->mutable_document()->set_question("Who works in Rome?");
  *request.mutable_handle() = first.started.handle();

  request.set_reuse(v1::REUSE_KEPT);
  const Reply kept = harness_.Ask(request);
  ASSERT_THAT(kept.status, IsOk());
  EXPECT_EQ(harness_.backends.prefills(), 1);
  EXPECT_LT(kept.finished.at(0).usage().kept_pairs(), first.finished.at(0).usage().kept_pairs());
  EXPECT_GT(kept.finished.at(0).usage().kept_pairs(), 0);
  EXPECT_EQ(harness_.Ask(request).trace(), kept.trace());

  request.set_reuse(v1::REUSE_VOTE_AGAIN);
  const Reply voted = harness_.Ask(request);
  ASSERT_THAT(voted.status, IsOk());
  EXPECT_EQ(harness_.backends.prefills(), 2);
  EXPECT_EQ(voted.trace(), Alone(request));
}

TEST_F(GenerateTest, TheEntrySaysWithWhichFactorItIsDecoded) {
  harness_.backends.SetRopeScale(3);
  v1::GenerateRequest request = Request(3);
  request.set_keep_entry_ms(60'000);
  const Reply reply = harness_.Ask(request);
  ASSERT_THAT(reply.status, IsOk());
  EXPECT_EQ(reply.started.rope_scale(), 3);
  EXPECT_EQ(reply.trace(), Alone(request, 0, 3));
  EXPECT_NE(reply.trace(), Alone(request)) << "and that matters";

  // A second question over the document: the entry's, whatever is asked for.
  request.set_reuse(v1::REUSE_KEPT);
  *request.mutable_handle() = reply.started.handle();
  const Reply again = harness_.Ask(request);
  ASSERT_THAT(again.status, IsOk());
  EXPECT_EQ(again.trace(), reply.trace());
  request.mutable_prompt()->mutable_document()->set_question("Who works in Rome?");
  const Reply other = harness_.Ask(request);
  request.mutable_rope_scaling()->set_factor(7);
  const Reply ignored = harness_.Ask(request);
  for (const Reply* kept : {&again, &other, &ignored}) {
    ASSERT_THAT(kept->status, IsOk());
    EXPECT_EQ(kept->started.rope_scale(), 3);
  }
  EXPECT_EQ(ignored.trace(), other.trace());
}

TEST_F(GenerateTest, WithoutACacheTheRequestsFactorCounts) {
  v1::GenerateRequest request = Request(4);
  EXPECT_EQ(harness_.Ask(request).started.rope_scale(), 1);
  request.mutable_rope_scaling()->set_factor(5);
  const Reply reply = harness_.Ask(request);
  ASSERT_THAT(reply.status, IsOk());
  EXPECT_EQ(reply.started.rope_scale(), 5);
  EXPECT_EQ(reply.trace(), Alone(request, 0, 5));
  EXPECT_NE(reply.trace(), Alone(request));
  request.mutable_rope_scaling()->set_factor(0.5);
  EXPECT_EQ(ErrorReason(harness_.Ask(request).status), "BAD_ROPE_SCALING");
  request.mutable_rope_scaling()->mutable_longllada();
  EXPECT_EQ(harness_.Ask(request).started.rope_scale(), 1) << "within the trained length";
}

TEST_F(GenerateTest, RequestsOfDifferentFactorsAtOnceGetWhatTheEngineAloneGives) {
  constexpr std::uint64_t kClients = 6;
  std::vector<v1::GenerateRequest> requests;
  for (std::uint64_t i = 0; i < kClients; ++i) {
    requests.push_back(Request(4 * i));  // without a cache
    requests.back().mutable_rope_scaling()->set_factor(1 + static_cast<double>(i));
  }
  std::vector<Reply> replies(kClients);
  std::vector<std::thread> clients;
  for (std::uint64_t i = 0; i < kClients; ++i) {
    clients.emplace_back([&, i] { replies[i] = harness_.Ask(requests[i]); });
  }
  for (std::thread& client : clients) client.join();
  for (std::uint64_t i = 0; i < kClients; ++i) {
    ASSERT_THAT(replies[i].status, IsOk());
    EXPECT_EQ(replies[i].trace(), Alone(requests[i], 0, 1 + static_cast<double>(i))) << i;
  }
}

TEST_F(GenerateTest, AHandleOfAnotherDocumentOrLengthOrOfNothingIsRefused) {
  v1::GenerateRequest request = Request(3);
  const Reply first = harness_.Ask(request);
  ASSERT_THAT(first.status, IsOk());
  request.set_reuse(v1::REUSE_KEPT);
  *request.mutable_handle() = first.started.handle();

  v1::GenerateRequest longer = request;
  longer.mutable_sampler()->set_gen_length(24);
  EXPECT_EQ(ErrorReason(harness_.Ask(longer).status), "HANDLE_PROMPT_MISMATCH");
  v1::GenerateRequest other = request;
  other.mutable_prompt()->mutable_document()->set_document("Something else.");
  EXPECT_EQ(ErrorReason(harness_.Ask(other).status), "HANDLE_PROMPT_MISMATCH");
  v1::GenerateRequest unknown = request;
  unknown.mutable_handle()->set_entry_id(999);
  EXPECT_EQ(ErrorReason(harness_.Ask(unknown).status), "HANDLE_UNKNOWN");
  v1::GenerateRequest moved = request;
  moved.mutable_handle()->set_epoch(1);
  EXPECT_EQ(ErrorReason(harness_.Ask(moved).status), "EPOCH_MOVED");
  ExpectNothingLeased();
}

TEST_F(GenerateTest, AnEntryThatIsGoneBeforeItIsLeasedIsMadeOnceMore) {
  v1::GenerateRequest request = Request(3);
  request.set_request_id(std::string(128, 'r'));
  harness_.backends.EvictBeforeMapping(1);
  const Reply reply = harness_.Ask(request);
  ASSERT_THAT(reply.status, IsOk());
  EXPECT_EQ(reply.trace(), Alone(request));
  EXPECT_EQ(reply.started.request_id(), request.request_id());
  const std::vector<std::string> ids = harness_.backends.request_ids();
  ASSERT_EQ(ids.size(), 2U);
  EXPECT_NE(ids[0], ids[1]);
  for (const std::string& id : ids) EXPECT_LE(id.size(), 128U);

  harness_.backends.EvictBeforeMapping(2);
  EXPECT_EQ(ErrorReason(harness_.Ask(request).status), "HANDLE_UNKNOWN");
}

TEST_F(GenerateTest, ARepeatedRequestAsksForTheSamePrefillAndAnotherOneDoesNot) {
  v1::GenerateRequest request = Request(3);
  request.set_request_id(std::string("mine"));
  ASSERT_THAT(harness_.Ask(request).status, IsOk());
  ASSERT_THAT(harness_.Ask(request).status, IsOk());
  request.mutable_prompt()->mutable_document()->set_question("Who is Bob?");
  ASSERT_THAT(harness_.Ask(request).status, IsOk());
  const std::vector<std::string> ids = harness_.backends.request_ids();
  ASSERT_EQ(ids.size(), 3U);
  EXPECT_EQ(ids[0], ids[1]);
  EXPECT_NE(ids[1], ids[2]);
}

}  // namespace
}  // namespace maskkv::testing
