// SPDX-License-Identifier: Apache-2.0
//
// Requests that refresh their entry, through a real channel: the engine's tokens, what the stream
// says of it, what happens to the others meanwhile and when a refresh fails.
#include <gtest/gtest.h>

#include <array>
#include <thread>
#include <vector>

#include "core/base/error.h"
#include "tests/integration/decode_harness.h"
#include "tests/support/status_matchers.h"

namespace maskkv::testing {
namespace {

using ::testing::HasSubstr;

class RefreshServiceTest : public ::testing::Test {
 protected:
  RefreshServiceTest() : harness_({}), alone_(harness_.model) {}

  static v1::GenerateRequest Request(std::int64_t every, double floor, double temperature = 0) {
    v1::GenerateRequest request;
    v1::DocumentQuestion& document = *request.mutable_prompt()->mutable_document();
    for (int i = 0; i < 8; ++i) {
      document.mutable_document()->append("Alice lives in Paris. Bob works in Rome. ");
    }
    document.set_question("Where does Alice live?");
    v1::Sampler& sampler = *request.mutable_sampler();
    sampler.set_gen_length(16);
    sampler.set_temperature(temperature);
    sampler.set_seed(7);
    sampler.set_ignore_eos(true);
    sampler.set_refresh_every(every);
    sampler.set_refresh_floor(floor);
    request.mutable_keep()->set_budget(6);
    if (temperature == 0) request.mutable_keep()->set_kv_dtype(v1::KV_DTYPE_INT8);
    return request;
  }

  Trace Alone(const v1::GenerateRequest& request, std::uint64_t sample = 0) {
    const v1::Sampler& sampler = request.sampler();
    engine::GenerateParams params;
    params.gen_length = params.steps = sampler.gen_length();
    params.block_length = 8;
    params.temperature = sampler.temperature();
    params.seed = sampler.seed() + sample;
    params.ignore_eos = sampler.ignore_eos();
    params.stop_ids = harness_.model->stop_ids();
    params.refresh_every = sampler.refresh_every();
    params.refresh_floor = sampler.refresh_floor();
    return alone_.Run(harness_.model->Tokenize(request.prompt())->ids, params,
                      request.cache() == v1::CACHE_NONE ? nullptr : &request.keep());
  }

  void ExpectNothingLeased() {
    while (harness_.backends.leased() != 0) std::this_thread::yield();
  }

  DecodeHarness harness_;
  EngineAlone alone_;
};

TEST_F(RefreshServiceTest, ClientsAtOnceGetWhatTheEngineAloneGives) {
  const std::vector<v1::GenerateRequest> requests{
      Request(1, 0),      Request(3, 0, 0.9), Request(5, 0.95), Request(0, 0.98, 0.8),
      Request(0, 0, 0.9), Request(15, 0),     Request(16, 0)};
  std::vector<Reply> replies(requests.size());
  std::vector<std::thread> clients;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    clients.emplace_back([&, i] { replies[i] = harness_.Ask(requests[i]); });
  }
  for (std::thread& client : clients) client.join();
  for (std::size_t i = 0; i < requests.size(); ++i) {
    ASSERT_THAT(replies[i].status, IsOk());
    EXPECT_EQ(replies[i].trace(), Alone(requests[i])) << "request " << i;
  }
  EXPECT_NE(replies[0].trace(), replies[6].trace()) << "a refresh changes what follows";
  EXPECT_EQ(replies[0].finished.at(0).usage().refreshes(), 15);
  EXPECT_EQ(replies[1].finished.at(0).usage().refreshes(), 5);
  EXPECT_EQ(replies[5].finished.at(0).usage().refreshes(), 1);
  EXPECT_EQ(replies[6].finished.at(0).usage().refreshes(), 0) << "none after the last step";
  ExpectNothingLeased();
}

TEST_F(RefreshServiceTest, TheFirstStepOverAnEntryNamesIt) {
  const Reply reply = harness_.Ask(Request(4, 1e-6));
  ASSERT_THAT(reply.status, IsOk());
  ASSERT_EQ(reply.steps.size(), 16U);
  std::uint64_t entry = reply.started.handle().entry_id();
  double waited = 0;
  for (const v1::Step& step : reply.steps) {
    const bool first = step.step() % 4 == 0 && step.step() > 0;
    ASSERT_EQ(step.has_refreshed(), first) << step.step();
    EXPECT_GT(step.kept_mass(), 0);
    EXPECT_LT(step.kept_mass(), 1);
    if (!first) continue;
    EXPECT_GT(step.refreshed().handle().entry_id(), entry);
    EXPECT_EQ(step.refreshed().entry_digest(), "digest");
    EXPECT_EQ(step.refreshed().kept().pairs(), reply.started.kept().pairs());
    EXPECT_GT(step.refreshed().entry_bytes(), 0U);
    entry = step.refreshed().handle().entry_id();
    waited += step.refreshed().wait_ms();
  }
  EXPECT_NEAR(reply.finished.at(0).timings().refresh_ms(), waited, 1e-6);
  EXPECT_EQ(harness_.backends.prefills(), 4);
  EXPECT_FALSE(harness_.Ask(Request(4, 0)).steps.front().has_kept_mass());
}

TEST_F(RefreshServiceTest, SamplesRefreshEachForItself) {
  v1::GenerateRequest request = Request(5, 0, 0.9);
  request.set_samples(3);
  const Reply reply = harness_.Ask(request);
  ASSERT_THAT(reply.status, IsOk());
  for (int sample = 0; sample < 3; ++sample) {
    EXPECT_EQ(reply.trace(sample), Alone(request, static_cast<std::uint64_t>(sample)));
  }
  EXPECT_EQ(harness_.backends.prefills(), 1 + 3 * 3);
  ExpectNothingLeased();
}

TEST_F(RefreshServiceTest, OthersStepWhileOneWaitsAndCancellingItFreesWhatItHolds) {
  harness_.backends.BlockPrefills(true, /*after=*/1);
  grpc::ClientContext context;
  context.set_wait_for_ready(true);
  const auto stub = harness_.NewStub();
  const auto reader = stub->Generate(&context, Request(1, 0));
  v1::GenerateEvent event;
  ASSERT_TRUE(reader->Read(&event) && event.has_started());
  ASSERT_TRUE(reader->Read(&event) && event.has_step());
  v1::GenerateRequest other = Request(0, 0);
  other.set_cache(v1::CACHE_NONE);
  const Reply reply = harness_.Ask(other);
  ASSERT_THAT(reply.status, IsOk());
  EXPECT_EQ(reply.trace(), Alone(other));
  context.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  ExpectNothingLeased();
}

TEST_F(RefreshServiceTest, AFailedRefreshEndsTheRequestWithItsErrorAfterTheStepsSoFar) {
  struct Failure {
    absl::Status failure;
    absl::StatusCode code;
    const char* message;
  };
  const std::array<Failure, 2> failures{
      {{absl::UnavailableError("gone"), absl::StatusCode::kUnavailable, "found it away"},
       {MakeError(absl::StatusCode::kResourceExhausted, "CACHE_FULL", "cache: full"),
        absl::StatusCode::kResourceExhausted, "cache: full"}}};
  const Trace whole = Alone(Request(3, 0));
  for (const Failure& failure : failures) {
    harness_.backends.FailPrefill(failure.failure, /*after=*/2);
    const Reply reply = harness_.Ask(Request(3, 0));
    EXPECT_THAT(reply.status, StatusIs(failure.code, HasSubstr(failure.message)));
    EXPECT_EQ(reply.trace(), Trace(whole.begin(), whole.begin() + 6));
    EXPECT_TRUE(reply.finished.empty());
    ExpectNothingLeased();
  }
  harness_.backends.EvictBeforeMapping(2);  // gone before it was leased: asked for once more
  EXPECT_EQ(harness_.Ask(Request(3, 0)).status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(harness_.Ask(Request(3, 0)).trace(), whole) << "the next request is not touched";
}

TEST_F(RefreshServiceTest, ARefreshNeedsAnEntryOfItsOwn) {
  v1::GenerateRequest request = Request(3, 0);
  request.set_cache(v1::CACHE_NONE);
  EXPECT_THAT(harness_.Ask(request).status, StatusIs(absl::StatusCode::kInvalidArgument,
                                                     HasSubstr("expected 0 with CACHE_NONE")));
  for (const auto& [every, floor] : {std::pair{-1, 0.0}, {0, 1.5}, {0, -0.5}}) {
    EXPECT_THAT(harness_.Ask(Request(every, floor)).status,
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("expected 0 to")));
  }
}

}  // namespace
}  // namespace maskkv::testing
