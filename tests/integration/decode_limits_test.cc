// SPDX-License-Identifier: Apache-2.0
//
// What ends or refuses answers, through a real channel: cancellation, deadlines, readers, places,
// tokens, failures behind.
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <thread>

#include "core/base/error.h"
#include "services/common/status.h"
#include "tests/integration/decode_harness.h"
#include "tests/support/status_matchers.h"

namespace maskkv::testing {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class LimitsTest : public ::testing::Test {
 protected:
  void Start() { harness_.emplace(options_); }

  // An answer that takes long.
  static v1::GenerateRequest Long() {
    v1::GenerateRequest request = Short();
    request.mutable_sampler()->set_gen_length(256);
    request.mutable_sampler()->set_block_length(256);
    return request;
  }
  // One that takes some steps.
  static v1::GenerateRequest Medium() {
    v1::GenerateRequest request = Long();
    request.mutable_sampler()->set_gen_length(48);
    request.mutable_sampler()->set_block_length(48);
    return request;
  }
  static v1::GenerateRequest Short() {
    v1::GenerateRequest request;
    request.mutable_prompt()->mutable_document()->set_document(
        std::string("Alice lives in Paris. Bob works in Rome."));
    request.mutable_sampler()->set_gen_length(8);
    request.mutable_sampler()->set_ignore_eos(true);
    return request;
  }

  // A stream that the test reads as it likes.
  struct Stream {
    grpc::ClientContext context;
    std::unique_ptr<v1::DecodeService::Stub> stub;
    std::unique_ptr<grpc::ClientReader<v1::GenerateEvent>> reader;
  };
  std::unique_ptr<Stream> Open(const v1::GenerateRequest& request,
                               std::optional<milliseconds> deadline = {}) {
    auto stream = std::make_unique<Stream>();
    stream->context.set_wait_for_ready(true);
    if (deadline) stream->context.set_deadline(std::chrono::system_clock::now() + *deadline);
    // What may be on its way without being read stays small: 64 KiB.
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    stream->stub = v1::DecodeService::NewStub(grpc::CreateCustomChannel(
        harness_->server->address(), grpc::InsecureChannelCredentials(), arguments));
    stream->reader = stream->stub->Generate(&stream->context, request);
    return stream;
  }
  static void ReadUntilAStep(Stream& stream) {
    v1::GenerateEvent event;
    while (stream.reader->Read(&event) && !event.has_step()) {
    }
    EXPECT_TRUE(event.has_step());
  }
  void WaitFor(const std::function<bool(const decode::StepCounts&)>& wanted) {
    while (!wanted(harness_->loop->state().counts)) std::this_thread::yield();
  }
  void ExpectAllIsFree() {
    while (harness_->backends.leased() != 0 || harness_->gate.waiting() != 0) {
      std::this_thread::yield();
    }
    WaitFor([](const decode::StepCounts& counts) {
      return counts.running + counts.waiting + counts.displaced + counts.stalled == 0;
    });
  }
  std::string ReasonFor(const v1::GenerateRequest& request,
                        const std::function<void(grpc::ClientContext&)>& prepare = {}) {
    return ErrorReason(harness_->Ask(request, prepare).status);
  }

  HarnessOptions options_;
  std::optional<DecodeHarness> harness_;
};

TEST_F(LimitsTest, ACancelledAnswerFreesEverything) {
  Start();
  const std::unique_ptr<Stream> stream = Open(Long());
  ReadUntilAStep(*stream);
  stream->context.TryCancel();
  const Reply reply = DecodeHarness::ReadAll(*stream->reader, 2);
  EXPECT_EQ(reply.status.code(), absl::StatusCode::kCancelled);
  ExpectAllIsFree();
}

TEST_F(LimitsTest, AClientThatVanishesFreesEverything) {
  Start();
  {
    const std::unique_ptr<Stream> stream = Open(Long());
    ReadUntilAStep(*stream);
    stream->context.TryCancel();  // as its connection's end would
    (void)stream->reader->Finish();
  }
  ExpectAllIsFree();
}

TEST_F(LimitsTest, ADeadlineEndsAnAnswerAndFreesEverything) {
  options_.loop.limits.max_running = 1;
  Start();
  // Holds the only place; the second answer waits for it until its deadline.
  const std::unique_ptr<Stream> first = Open(Long());
  ReadUntilAStep(*first);
  const std::unique_ptr<Stream> second = Open(Long(), milliseconds(100));
  const Reply reply = DecodeHarness::ReadAll(*second->reader);
  EXPECT_EQ(reply.status.code(), absl::StatusCode::kDeadlineExceeded);
  first->context.TryCancel();
  (void)DecodeHarness::ReadAll(*first->reader, 2);
  ExpectAllIsFree();
}

TEST_F(LimitsTest, ACallThatIsGivenUpDuringItsPrefillEndsThePrefill) {
  Start();
  harness_->backends.BlockPrefills(true);
  const std::unique_ptr<Stream> stream = Open(Short());
  while (harness_->gate.waiting() == 0) std::this_thread::yield();
  stream->context.TryCancel();
  const Reply reply = DecodeHarness::ReadAll(*stream->reader);
  EXPECT_EQ(reply.status.code(), absl::StatusCode::kCancelled);
  ExpectAllIsFree();
  harness_->backends.BlockPrefills(false);
}

TEST_F(LimitsTest, AReaderThatDoesNotReadIsEndedAndNobodyElseIs) {
  options_.loop.limits.stall_limit = milliseconds(300);
  options_.loop.event_queue = 2;
  Start();
  v1::GenerateRequest request = Long();
  // So that events fill the window of the connection.
  request.set_provisional(true);
  request.set_samples(8);
  const std::unique_ptr<Stream> slow = Open(request);
  ReadUntilAStep(*slow);
  while (harness_->backends.leased() > 0) EXPECT_THAT(harness_->Ask(Short()).status, IsOk());
  ExpectAllIsFree();
  const Reply reply = DecodeHarness::ReadAll(*slow->reader, 2);
  EXPECT_EQ(reply.status.code(), absl::StatusCode::kResourceExhausted) << reply.status;
  EXPECT_TRUE(reply.finished.empty());
}

TEST_F(LimitsTest, AHigherPriorityIsServedWhileALowerOneWaitsAndBothEndAsAlone) {
  options_.loop.limits.max_running = 1;
  Start();
  const v1::GenerateRequest low = Medium();
  const Trace low_alone = harness_->Ask(low).trace(), high_alone = harness_->Ask(Short()).trace();
  Reply low_reply;
  std::atomic<bool> low_done{false};
  std::thread low_client([&] {
    low_reply = harness_->Ask(low);
    low_done = true;
  });
  WaitFor([](const decode::StepCounts& counts) { return counts.running == 1; });
  v1::GenerateRequest high = Short();
  high.set_priority(10);
  std::int64_t served = 0;
  while (!low_done) {
    const Reply reply = harness_->Ask(high);
    EXPECT_THAT(reply.status, IsOk());
    EXPECT_EQ(reply.trace(), high_alone);
    ++served;
  }
  low_client.join();
  EXPECT_THAT(low_reply.status, IsOk());
  EXPECT_EQ(low_reply.trace(), low_alone);
  EXPECT_GT(served, 0);
}

TEST_F(LimitsTest, BeyondTheGateRequestsAreRefusedWithAHint) {
  options_.gate = 1;
  Start();
  harness_->backends.BlockPrefills(true);
  const std::unique_ptr<Stream> stream = Open(Short());
  while (harness_->gate.waiting() == 0) std::this_thread::yield();
  const Reply refused = harness_->Ask(Short());
  EXPECT_EQ(refused.status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ErrorReason(refused.status), "QUEUE_FULL");
  EXPECT_TRUE(RetryAfter(refused.status).has_value());
  harness_->backends.BlockPrefills(false);
  EXPECT_THAT(DecodeHarness::ReadAll(*stream->reader).status, IsOk());
  ExpectAllIsFree();
}

TEST_F(LimitsTest, ABrokenEntryFailsItsRequestAndNoOther) {
  Start();
  const Trace alone = harness_->Ask(Medium()).trace();
  const std::unique_ptr<Stream> healthy = Open(Medium());
  ReadUntilAStep(*healthy);
  harness_->backends.PoisonEntry();
  EXPECT_EQ(harness_->Ask(Short()).status.code(), absl::StatusCode::kDataLoss);
  const Reply reply = DecodeHarness::ReadAll(*healthy->reader, 2);
  EXPECT_THAT(reply.status, IsOk());
  EXPECT_EQ(reply.finished.at(0).usage().steps(), 48);
  // The first step was read before.
  EXPECT_EQ(reply.trace(), Trace(alone.begin() + 1, alone.end()));
  ExpectAllIsFree();
}

TEST_F(LimitsTest, ErrorsOfPrefillComeThroughAndItsAbsenceIsUnavailable) {
  Start();
  harness_->backends.FailPrefill(WithRetryAfter(
      MakeError(absl::StatusCode::kResourceExhausted, "CACHE_FULL", "cache: full"), seconds(2)));
  const Reply full = harness_->Ask(Short());
  EXPECT_EQ(ErrorReason(full.status), "CACHE_FULL");
  EXPECT_EQ(RetryAfter(full.status), seconds(2));

  harness_->backends.FailPrefill(absl::CancelledError("its own end"));
  EXPECT_EQ(ReasonFor(Short()), "PREFILL_DOWN");
  harness_->prefill_server->Drain(milliseconds(0));
  const Reply down = harness_->Ask(Short());
  EXPECT_EQ(down.status.code(), absl::StatusCode::kUnavailable);
  v1::GenerateRequest without = Short();
  without.set_cache(v1::CACHE_NONE);
  EXPECT_THAT(harness_->Ask(without).status, IsOk());
  ExpectAllIsFree();
}

TEST_F(LimitsTest, BadRequestsAreRefusedWithTheirReasons) {
  Start();
  v1::GenerateRequest request = Short();
  request.mutable_sampler()->set_steps(3);
  request.mutable_sampler()->set_block_length(4);
  EXPECT_EQ(ReasonFor(request), "BAD_SAMPLER");
  request = Short();
  request.mutable_prompt()->mutable_tokens()->add_ids(-1);
  EXPECT_EQ(ReasonFor(request), "TOKEN_OUT_OF_RANGE");
  request = Short();
  request.mutable_prompt()->mutable_tokens()->add_ids(harness_->model->config().mask_id);
  EXPECT_EQ(ReasonFor(request), "MASK_IN_PROMPT");
  request = Short();
  for (int i = 0; i < 512; ++i) request.mutable_prompt()->mutable_tokens()->add_ids(1);
  EXPECT_EQ(ReasonFor(request), "PROMPT_TOO_LONG");
  request = Short();
  request.clear_prompt();
  EXPECT_EQ(ReasonFor(request), "NO_PROMPT");
  request = Short();
  request.set_request_id(std::string("two\nlines"));
  EXPECT_EQ(ReasonFor(request), "BAD_REQUEST_ID");
  EXPECT_EQ(harness_->backends.prefills(), 0);
  ExpectAllIsFree();
}

TEST_F(LimitsTest, WhereTokensAreAskedForNobodyIsServedWithout) {
  const absl::StatusOr<decode::TokenTable> tokens =
      decode::TokenTable::Parse("a-token-of-16-chars team", "tokens");
  ASSERT_THAT(tokens, IsOk());
  options_.tokens = &*tokens;
  Start();
  EXPECT_EQ(ReasonFor(Short()), "BAD_TOKEN");
  EXPECT_EQ(ReasonFor(Short(),
                      [](grpc::ClientContext& context) {
                        context.AddMetadata("authorization", "Bearer another-token-1234");
                      }),
            "BAD_TOKEN");
  EXPECT_EQ(ReasonFor(Short(),
                      [](grpc::ClientContext& context) {
                        context.AddMetadata("authorization", "Bearer a-token-of-16-chars");
                      }),
            "");
}

TEST_F(LimitsTest, ADrainingServerFinishesItsStreamsAndTakesNoMore) {
  Start();
  const std::unique_ptr<Stream> stream = Open(Medium());
  ReadUntilAStep(*stream);
  std::thread drain([&] { harness_->server->Drain(seconds(60)); });
  const Reply reply = DecodeHarness::ReadAll(*stream->reader, 2);
  EXPECT_THAT(reply.status, IsOk());
  EXPECT_EQ(reply.finished.size(), 1U);
  drain.join();
  EXPECT_EQ(harness_->backends.leased(), 0);
}

}  // namespace
}  // namespace maskkv::testing
