// SPDX-License-Identifier: Apache-2.0
//
// Cache manager, prefill and decode together, each on a server of its own in this process: real
// calls, real descriptors, the real engine.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/schedule/compute_turns.h"
#include "maskkv/v1/decode.grpc.pb.h"
#include "services/cache/cache_service.h"
#include "services/common/call.h"
#include "services/decode/decode_service.h"
#include "services/prefill/prefill_service.h"
#include "tests/integration/decode_harness.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_folder.h"

namespace maskkv::testing {
namespace {

using std::chrono::milliseconds;

class SharedMemoryTest : public ::testing::Test {
 protected:
  explicit SharedMemoryTest(const std::shared_ptr<schedule::Turns>& turns = nullptr)
      : model_(TestModelRuntime()), alone_(model_) {
    cache::CacheServiceOptions cache_options;
    cache_options.limits.capacity_bytes = 64 << 20;
    cache_options.socket = folder_.File("cache.sock");
    cache_.emplace(*cache::CacheService::Start(cache_options, registry_));
    cache_server_ = Serve(cache_->service(), "cache.grpc");

    const services::CacheClientOptions client{.address = Address("cache.grpc"),
                                              .socket = folder_.File("cache.sock")};
    prefill::PrefillServiceOptions prefill_options;
    prefill_options.model = model_;
    prefill_options.cache = *services::CacheClient::Create(client);
    prefill_options.turns = turns;
    prefill_.emplace(*prefill::PrefillService::Start(prefill_options));
    prefill_server_ = Serve(prefill_->service(), "prefill.grpc");

    decode::DecodeOptions decode_options;
    decode_options.prefill = Address("prefill.grpc");
    decode_options.cache = client;
    decode_options.turns = turns;
    decode_.emplace(*decode::DecodeService::Create(decode_options, model_, registry_));
    decode_server_ = Serve(decode_->service(), "decode.grpc");
  }

  ~SharedMemoryTest() override {
    decode_server_->Drain(milliseconds(0));
    prefill_->Stop();
    prefill_server_->Drain(milliseconds(0));
    decode_server_.reset();
    prefill_server_.reset();
    decode_.reset();
    prefill_.reset();
    cache_server_->Drain(milliseconds(0));
    cache_server_.reset();
  }

  std::string Address(const std::string& name) const { return "unix:" + folder_.File(name); }

  std::unique_ptr<services::Server> Serve(grpc::Service& service, const std::string& name) {
    const std::array<grpc::Service*, 1> registered{&service};
    absl::StatusOr<services::Server> server =
        services::Server::Start({.listen = {Address(name)}}, registered, registry_);
    EXPECT_THAT(server, IsOk());
    return std::make_unique<services::Server>(*std::move(server));
  }

  Reply Ask(const v1::GenerateRequest& request, const std::string& tenant = "") {
    const auto stub = v1::DecodeService::NewStub(services::OpenChannel(Address("decode.grpc")));
    grpc::ClientContext context;
    if (!tenant.empty()) context.AddMetadata(services::kTenantKey, tenant);
    const auto reader = stub->Generate(&context, request);
    return DecodeHarness::ReadAll(*reader);
  }

  static v1::GenerateRequest Request(std::uint64_t seed) {
    v1::GenerateRequest request;
    v1::DocumentQuestion& document = *request.mutable_prompt()->mutable_document();
    for (std::uint64_t i = 0; i < 5 + seed % 3; ++i) {
      document.mutable_document()->append("Alice lives in Paris. Bob works in Rome. ");
    }
    document.set_question(seed % 2 == 0 ? "Where does Alice live?" : "Where does Bob work?");
    v1::Sampler& sampler = *request.mutable_sampler();
    sampler.set_gen_length(8);
    sampler.set_temperature(seed % 2 == 0 ? 0.0 : 0.9);
    sampler.set_seed(seed);
    v1::KeepPolicy& keep = *request.mutable_keep();
    keep.set_layer_rule(v1::LAYER_RULE_UNIFORM);
    keep.set_alpha(0.1);
    keep.set_budget(6);
    if (seed % 4 == 1) keep.set_selection(v1::SELECTION_FULL);
    if (seed % 4 == 2) {
      keep.set_selection(v1::SELECTION_RANDOM);
      keep.set_random_seed(seed);
    }
    if (seed % 3 == 0) keep.set_kv_dtype(v1::KV_DTYPE_INT8);
    if (seed % 4 == 3) request.set_cache(v1::CACHE_NONE);
    return request;
  }

  Trace Alone(const v1::GenerateRequest& request) {
    engine::GenerateParams params;
    params.gen_length = params.steps = params.block_length = request.sampler().gen_length();
    params.temperature = request.sampler().temperature();
    params.seed = request.sampler().seed();
    params.stop_ids = model_->stop_ids();
    return alone_.Run(model_->Tokenize(request.prompt())->ids, params,
                      request.cache() == v1::CACHE_NONE ? nullptr : &request.keep());
  }

  void ExpectLeases(std::int64_t leases) {
    while (cache_->manager().Stat().leases != leases) std::this_thread::yield();
    cache_->manager().CheckInvariants();
  }

  const TempFolder folder_;
  const std::shared_ptr<const services::ModelRuntime> model_;
  EngineAlone alone_;
  telemetry::Registry registry_;
  std::optional<cache::CacheService> cache_;
  std::optional<prefill::PrefillService> prefill_;
  std::optional<decode::DecodeService> decode_;
  std::unique_ptr<services::Server> cache_server_, prefill_server_, decode_server_;
};

TEST_F(SharedMemoryTest, EightClientsGetWhatTheEngineAloneGivesAndLeaveNoLease) {
  constexpr std::uint64_t kRequests = 16;
  std::vector<Reply> replies(kRequests);
  std::vector<std::thread> clients;
  for (std::uint64_t client = 0; client < 8; ++client) {
    clients.emplace_back([&, client] {
      for (std::uint64_t i = client; i < kRequests; i += 8) replies[i] = Ask(Request(i));
    });
  }
  for (std::thread& client : clients) client.join();
  for (std::uint64_t i = 0; i < kRequests; ++i) {
    ASSERT_THAT(replies[i].status, IsOk());
    EXPECT_EQ(replies[i].trace(), Alone(Request(i))) << "request " << i;
  }
  ExpectLeases(0);
}

TEST_F(SharedMemoryTest, AKeptEntryServesTheNextQuestionOfItsTenantOnly) {
  v1::GenerateRequest request = Request(0);
  request.set_keep_entry_ms(600'000);
  const Reply first = Ask(request, "one");
  ASSERT_THAT(first.status, IsOk());
  ExpectLeases(1);
  request.set_reuse(v1::REUSE_KEPT);
  *request.mutable_handle() = first.started.handle();
  const Reply same = Ask(request, "one");
  ASSERT_THAT(same.status, IsOk());
  EXPECT_EQ(same.trace(), first.trace());
  EXPECT_EQ(same.started.provenance().entry_digest(), first.started.provenance().entry_digest());
  EXPECT_EQ(ErrorReason(Ask(request, "other").status), "HANDLE_UNKNOWN");
  request.mutable_prompt()->mutable_document()->set_question("Who works in Rome?");
  const Reply another = Ask(request, "one");
  ASSERT_THAT(another.status, IsOk());
  EXPECT_LT(another.finished.at(0).usage().kept_pairs(), first.finished.at(0).usage().kept_pairs());
  ExpectLeases(1);
}

TEST_F(SharedMemoryTest, ACopyOfADocumentIsVotedOverByManyQuestions) {
  v1::GenerateRequest whole = Request(0);
  whole.mutable_keep()->set_selection(v1::SELECTION_FULL);
  whole.set_keep_entry_ms(600'000);
  const Reply first = Ask(whole, "one");
  ASSERT_THAT(first.status, IsOk());
  v1::GenerateRequest request = Request(0);
  request.set_reuse(v1::REUSE_VOTE_OVER);
  *request.mutable_handle() = first.started.handle();
  const Reply own = Ask(request, "one");
  ASSERT_THAT(own.status, IsOk());
  EXPECT_EQ(own.trace(), Alone(Request(0))) << "the question that was in place: its own prefill";
  EXPECT_NE(own.started.handle().entry_id(), first.started.handle().entry_id());

  request.mutable_prompt()->mutable_document()->set_question("Who works in Rome?");
  const Reply other = Ask(request, "one");
  ASSERT_THAT(other.status, IsOk());
  EXPECT_EQ(other.started.kept().pairs(), own.started.kept().pairs()) << "the budget's";
  EXPECT_EQ(Ask(request, "one").trace(), other.trace());
  EXPECT_EQ(ErrorReason(Ask(request, "other").status), "HANDLE_UNKNOWN");
  ExpectLeases(1);

  *request.mutable_handle() = own.started.handle();
  EXPECT_EQ(ErrorReason(Ask(request, "one").status), "DOCUMENT_NOT_WHOLE");
  request.mutable_keep()->Clear();
  request.mutable_keep()->set_policy("prompt-voting");
  *request.mutable_handle() = first.started.handle();
  EXPECT_EQ(ErrorReason(Ask(request, "one").status), "BAD_KEEP");
  ExpectLeases(1);
}

TEST_F(SharedMemoryTest, AnEvictedHandleIsUnknownAndTheSameRequestMakesANewOne) {
  v1::GenerateRequest request = Request(0);
  request.set_request_id(std::string("again"));
  const Reply first = Ask(request);
  ASSERT_THAT(first.status, IsOk());
  ExpectLeases(0);
  absl::StatusOr<arena::SessionToken> token = cache_->manager().OpenSession(
      {.uid = 0, .tenant = services::kDefaultTenant, .is_service = true});
  ASSERT_TRUE(token.ok());
  cache_->manager().EvictAll(*cache_->manager().Authenticate(*token, services::kDefaultTenant));
  v1::GenerateRequest reuse = request;
  reuse.set_reuse(v1::REUSE_KEPT);
  *reuse.mutable_handle() = first.started.handle();
  EXPECT_EQ(ErrorReason(Ask(reuse).status), "HANDLE_UNKNOWN");
  const Reply again = Ask(request);
  ASSERT_THAT(again.status, IsOk());
  EXPECT_EQ(again.trace(), first.trace());
  EXPECT_NE(again.started.handle().entry_id(), first.started.handle().entry_id());
}

TEST_F(SharedMemoryTest, WithoutItsCacheManagerOnlyAnswersWithoutACacheAreGiven) {
  ASSERT_THAT(Ask(Request(0)).status, IsOk());
  cache_server_->Drain(milliseconds(0));
  EXPECT_EQ(Ask(Request(0)).status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Ask(Request(3)).status, IsOk());
}

// Records who computes. Steps begin when a prefill has, and it comes to the end of a tile only when
// a step waits or none will.
class RecordedTurns final : public schedule::Turns {
 public:
  schedule::TurnWait Begin(schedule::Side side) override {
    while (side == schedule::Side::kStep && steps_wait) std::this_thread::yield();
    const schedule::TurnWait wait = turns_.Begin(side);
    if (side == schedule::Side::kTile) steps_wait = false;
    Log(side == schedule::Side::kStep ? 's' : 't');
    return wait;
  }
  schedule::TurnWait GiveWay() override {
    while (turns_.waiting(schedule::Side::kStep) == 0 && steps_go_on) std::this_thread::yield();
    const schedule::TurnWait wait = turns_.GiveWay();
    Log('t');
    return wait;
  }
  void End(schedule::Side side) override { turns_.End(side); }

  std::string log() const {
    const std::lock_guard lock(mutex_);
    return log_;
  }

  std::atomic<bool> steps_wait = true;   // until a tile begins
  std::atomic<bool> steps_go_on = true;  // as far as the test knows

 private:
  // By whoever has the turn, hence in the order of turns.
  void Log(char turn) {
    const std::lock_guard lock(mutex_);
    log_ += turn;
  }

  const SteadyClock clock_;
  schedule::ComputeTurns turns_{0, clock_};
  mutable std::mutex mutex_;  // an answer's way to the test is nothing that orders what was logged
  std::string log_;           // guarded by mutex_
};

class TurnsTest : public SharedMemoryTest {
 protected:
  TurnsTest() : TurnsTest(std::make_shared<RecordedTurns>()) {}
  explicit TurnsTest(std::shared_ptr<RecordedTurns> turns)
      : SharedMemoryTest(turns), turns_(std::move(turns)) {}

  const std::shared_ptr<RecordedTurns> turns_;
};

TEST_F(TurnsTest, RunningStreamsStepBetweenAnyTwoTilesOfALongPrefill) {
  v1::GenerateRequest stream = Request(3);  // without a cache, hence without a prefill
  stream.mutable_sampler()->set_gen_length(32);
  stream.mutable_sampler()->set_block_length(32);
  v1::GenerateRequest prompt = Request(0);
  for (int i = 0; i < 40; ++i) {
    prompt.mutable_prompt()->mutable_document()->mutable_document()->append("Carl likes tea. ");
  }
  const Trace stream_alone = Alone(stream), prompt_alone = Alone(prompt);

  Reply streamed, answered;
  std::thread asks([&] {
    answered = Ask(prompt);
    turns_->steps_wait = false;
  });
  std::thread streams([&] {
    streamed = Ask(stream);
    turns_->steps_go_on = false;
  });
  streams.join();
  asks.join();
  ASSERT_THAT(streamed.status, IsOk());
  ASSERT_THAT(answered.status, IsOk());
  EXPECT_EQ(streamed.trace(), stream_alone);
  EXPECT_EQ(answered.trace(), prompt_alone);

  // A step after each tile and a tile after each step, until one of them has ended.
  const std::string log = turns_->log();
  const std::string both = log.substr(0, std::min(log.find("tt"), log.find("ss")));
  EXPECT_EQ(both.substr(0, 2), "ts");
  const auto steps = static_cast<std::size_t>(std::ranges::count(both, 's'));
  EXPECT_GE(steps, std::min<std::size_t>(streamed.steps.size(), 20)) << log;
}

}  // namespace
}  // namespace maskkv::testing
