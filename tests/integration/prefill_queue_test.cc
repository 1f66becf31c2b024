// SPDX-License-Identifier: Apache-2.0
//
// The prefill service under calls that wait, join, go away and come again, and beside a cache
// manager and a budget controller that are not there.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <future>
#include <mutex>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "maskkv/v1/budget.pb.h"
#include "services/common/plan_watcher.h"
#include "tests/integration/prefill_harness.h"
#include "tests/integration/raw_call.h"
#include "tests/support/status_matchers.h"

namespace maskkv::testing {
namespace {

using Answer = absl::StatusOr<v1::PrefillResponse>;

// A call that runs while the test goes on, and can be cancelled.
class Running {
 public:
  Running(PrefillHarness& harness, const v1::PrefillRequest& request,
          std::optional<std::chrono::milliseconds> deadline = std::nullopt) {
    if (deadline) context_.set_deadline(std::chrono::system_clock::now() + *deadline);
    answer_ = std::async(std::launch::async,
                         [this, &harness, request] { return harness.Prefill(context_, request); });
  }
  void Cancel() { context_.TryCancel(); }
  Answer Get() { return answer_.get(); }

 private:
  grpc::ClientContext context_;  // outlives the call: cancelling ends it before TryCancel returns
  std::future<Answer> answer_;
};

class PrefillQueueTest : public ::testing::Test {
 protected:
  void Start(const PrefillHarnessOptions& options = {}) { harness_.emplace(options); }

  v1::PrefillRequest Request(std::uint64_t seed, std::int64_t tokens = 60) {
    return RequestOf(TokensOf(harness_->model->config(), tokens, seed));
  }
  // A request that holds the place of the forward until the gate opens.
  std::unique_ptr<Running> HoldThePlace() {
    harness_->gate.Hold();
    auto holder = std::make_unique<Running>(*harness_, Request(1000));
    Until([&] { return harness_->gate.held() == 1; });
    return holder;
  }
  void UntilWaiting(int count) {
    Until([&] { return harness_->WaitingFor("forward") == count; });
  }
  // Nothing but sealed entries is charged.
  void ExpectNothingHeld() {
    Until([&] {
      const arena::CacheStat stat = harness_->cache->manager().Stat();
      return stat.reserved_entries == 0 && stat.leases == 0 && stat.pending_entries == 0;
    });
    EXPECT_EQ(harness_->Metric("maskkv_requests_waiting{service=\"prefill\"}"), 0);
  }

  std::optional<PrefillHarness> harness_;
};

TEST_F(PrefillQueueTest, ARequestIdGetsTheSameAnswerAgain) {
  Start();
  v1::PrefillRequest request = Request(1);
  request.set_request_id("one");
  const Answer first = harness_->Prefill(request);
  const Answer again = harness_->Prefill(request);
  ASSERT_THAT(first, IsOk());
  ASSERT_THAT(again, IsOk());
  EXPECT_EQ(again->SerializeAsString(), first->SerializeAsString());
  EXPECT_EQ(harness_->Finished("remembered"), 1);
  v1::PrefillRequest other = Request(2);
  other.set_request_id("one");
  const Answer refused = harness_->Prefill(other);
  EXPECT_TRUE(absl::IsAlreadyExists(refused.status()));
  EXPECT_EQ(ErrorReason(refused.status()), "REQUEST_ID_REUSED");
  EXPECT_THAT(harness_->Prefill(other, "another-tenant"), IsOk());
}

TEST_F(PrefillQueueTest, ARequestIdWhoseEntryIsGoneGetsANewEntry) {
  Start();
  v1::PrefillRequest request = Request(1);
  request.set_request_id("one");
  const Answer first = harness_->Prefill(request);
  ASSERT_THAT(first, IsOk());
  arena::CacheManager& manager = harness_->cache->manager();
  const auto session = manager.OpenSession({.uid = 1, .tenant = "default", .is_service = false});
  manager.EvictAll(*manager.Authenticate(*session, ""));
  const Answer again = harness_->Prefill(request);
  ASSERT_THAT(again, IsOk());
  EXPECT_NE(again->handle().entry_id(), first->handle().entry_id());
  EXPECT_EQ(again->provenance().entry_digest(), first->provenance().entry_digest());
  EXPECT_NE(harness_->Map(again->handle()), nullptr);
}

TEST_F(PrefillQueueTest, CallsOfOneRequestIdShareOneForward) {
  Start();
  harness_->gate.Hold();
  v1::PrefillRequest request = Request(1);
  request.set_request_id("one");
  std::vector<std::unique_ptr<Running>> calls;
  for (int i = 0; i < 4; ++i) calls.push_back(std::make_unique<Running>(*harness_, request));
  Until([&] { return harness_->WaitingFor("joined") == 3 && harness_->gate.held() == 1; });
  harness_->gate.Open();
  std::string entry;
  for (const auto& call : calls) {
    const Answer answer = call->Get();
    ASSERT_THAT(answer, IsOk());
    if (entry.empty()) entry = answer->handle().SerializeAsString();
    EXPECT_EQ(answer->handle().SerializeAsString(), entry);
  }
  EXPECT_EQ(harness_->Finished("forward"), 1);
  EXPECT_EQ(harness_->Finished("remembered"), 3);
}

TEST_F(PrefillQueueTest, AJoinedCallTakesOverWhenTheFirstOneIsCancelled) {
  Start();
  harness_->gate.Hold();
  v1::PrefillRequest request = Request(1);
  request.set_request_id("one");
  Running first(*harness_, request);
  Until([&] { return harness_->gate.held() == 1; });
  Running second(*harness_, request);
  Until([&] { return harness_->WaitingFor("joined") == 1; });
  first.Cancel();
  EXPECT_TRUE(absl::IsCancelled(first.Get().status()));
  harness_->gate.Open();
  EXPECT_THAT(second.Get(), IsOk());
  ExpectNothingHeld();
}

TEST_F(PrefillQueueTest, AFullQueueRefusesAndSaysWhenToComeAgain) {
  PrefillHarnessOptions options;
  options.service.queue_capacity = 2;
  Start(options);
  const auto holder = HoldThePlace();
  Running a(*harness_, Request(1)), b(*harness_, Request(2));
  UntilWaiting(2);
  const Answer refused = harness_->Prefill(Request(3));
  EXPECT_TRUE(absl::IsResourceExhausted(refused.status()));
  EXPECT_EQ(ErrorReason(refused.status()), "QUEUE_FULL");
  EXPECT_TRUE(RetryAfter(refused.status()).has_value());
  harness_->gate.Open();
  EXPECT_THAT(holder->Get(), IsOk());
  EXPECT_THAT(a.Get(), IsOk());
  EXPECT_THAT(b.Get(), IsOk());
}

TEST_F(PrefillQueueTest, WorkingMemoryOfAllThatWaitAndRunIsBounded) {
  PrefillHarnessOptions options;
  options.service.queue_bytes = 200'000;
  Start(options);
  EXPECT_EQ(ErrorReason(harness_->Prefill(Request(1, 4000)).status()), "PROMPT_TOO_LARGE");
  const auto holder = HoldThePlace();
  Running a(*harness_, Request(1, 300));
  UntilWaiting(1);
  EXPECT_EQ(ErrorReason(harness_->Prefill(Request(2, 300)).status()), "QUEUE_FULL");
  harness_->gate.Open();
  EXPECT_THAT(a.Get(), IsOk());
  EXPECT_THAT(harness_->Prefill(Request(2, 300)), IsOk());
}

TEST_F(PrefillQueueTest, WhoWaitsTooLongIsAnswered) {
  PrefillHarnessOptions options;
  options.service.longest_wait = std::chrono::milliseconds(50);
  Start(options);
  const auto holder = HoldThePlace();
  const Answer answer = harness_->Prefill(Request(1));
  EXPECT_TRUE(absl::IsDeadlineExceeded(answer.status()));
  EXPECT_EQ(ErrorReason(answer.status()), "QUEUE_TIMEOUT");
  harness_->gate.Open();
  EXPECT_THAT(holder->Get(), IsOk());
}

TEST_F(PrefillQueueTest, ACancelledOrLateCallLeavesTheQueue) {
  Start();
  const auto holder = HoldThePlace();
  Running cancelled(*harness_, Request(1));
  UntilWaiting(1);
  cancelled.Cancel();
  EXPECT_TRUE(absl::IsCancelled(cancelled.Get().status()));
  UntilWaiting(0);
  Running late(*harness_, Request(2), std::chrono::milliseconds(50));
  EXPECT_TRUE(absl::IsDeadlineExceeded(late.Get().status()));
  UntilWaiting(0);
  harness_->gate.Open();
  EXPECT_THAT(holder->Get(), IsOk());
  Until(
      [&] { return harness_->Finished("cancelled") == 1 && harness_->Finished("deadline") == 1; });
  ExpectNothingHeld();
}

TEST_F(PrefillQueueTest, AHighPriorityGoesBeforeThoseThatWait) {
  Start();
  const auto holder = HoldThePlace();
  std::vector<std::unique_ptr<Running>> low;
  for (std::uint64_t i = 0; i < 5; ++i) {
    v1::PrefillRequest request = Request(i);
    request.set_priority(-50);
    low.push_back(std::make_unique<Running>(*harness_, request));
  }
  UntilWaiting(5);
  v1::PrefillRequest urgent = Request(99);
  urgent.set_priority(100);
  Running high(*harness_, urgent);
  UntilWaiting(6);
  harness_->gate.Open();
  const Answer answer = high.Get();
  ASSERT_THAT(answer, IsOk());
  std::uint64_t earlier = 0;  // entries are numbered as they are reserved
  for (const auto& call : low) {
    const Answer other = call->Get();
    ASSERT_THAT(other, IsOk());
    if (other->handle().entry_id() < answer->handle().entry_id()) ++earlier;
  }
  EXPECT_EQ(earlier, 0U);
  EXPECT_THAT(holder->Get(), IsOk());
}

TEST_F(PrefillQueueTest, ACallCancelledInItsForwardGivesItsReservationBack) {
  PrefillHarnessOptions options;
  options.model = "models/tiny-llada";
  Start(options);
  arena::CacheManager& manager = harness_->cache->manager();
  const std::uint64_t before = manager.Stat().allocated_bytes;
  for (int round = 0; round < 3; ++round) {
    Running running(*harness_, Request(static_cast<std::uint64_t>(round), 2000));
    Until([&] { return manager.Stat().reserved_entries == 1; });
    EXPECT_GT(manager.Stat().allocated_bytes, before);
    running.Cancel();
    EXPECT_TRUE(absl::IsCancelled(running.Get().status()));
    ExpectNothingHeld();
    EXPECT_EQ(manager.Stat().allocated_bytes, before);
  }
  // The deadline counts in the forward as well.
  Running late(*harness_, Request(50, 2000), std::chrono::milliseconds(60));
  EXPECT_TRUE(absl::IsDeadlineExceeded(late.Get().status()));
  ExpectNothingHeld();
  EXPECT_EQ(manager.Stat().allocated_bytes, before);
  EXPECT_THAT(harness_->Prefill(Request(60, 50)), IsOk());
}

TEST_F(PrefillQueueTest, CallsCancelledAtAnyMomentLeaveNothingBehind) {
  Start();
  int answered = 0, cancelled = 0;
  for (std::uint64_t round = 0; round < 60; ++round) {
    Running running(*harness_, Request(round, 400));
    for (std::uint64_t i = 0; i < round * 400; ++i) std::this_thread::yield();
    running.Cancel();
    const Answer answer = running.Get();
    ++(answer.ok() ? answered : cancelled);
    if (!answer.ok()) {
      EXPECT_TRUE(absl::IsCancelled(answer.status())) << answer.status();
    }
  }
  ExpectNothingHeld();
  EXPECT_GT(cancelled, 0);
  harness_->cache->manager().CheckInvariants();
}

TEST_F(PrefillQueueTest, StartsWithoutACacheManagerAndWorksOnceItIsThere) {
  PrefillHarnessOptions options;
  options.cache_at_start = false;
  Start(options);
  const auto channel =
      grpc::CreateChannel(harness_->server->address(), grpc::InsecureChannelCredentials());
  std::promise<void> ready;
  harness_->service->Begin([&] {
    harness_->server->SetReady(true);
    ready.set_value();
  });
  const Answer early = harness_->Prefill(Request(1));
  EXPECT_TRUE(absl::IsUnavailable(early.status()));
  EXPECT_EQ(ErrorReason(early.status()), "CACHE_DOWN");
  EXPECT_EQ(HealthOf(channel, "readiness"), "NOT_SERVING");
  harness_->StartCache();
  ready.get_future().wait();
  EXPECT_EQ(HealthOf(channel, "readiness"), "SERVING");
  const Answer first = harness_->Prefill(Request(1));
  ASSERT_THAT(first, IsOk());

  // A restart: the entry is gone with the daemon, the next prefill makes another.
  harness_->StopCache();
  EXPECT_EQ(ErrorReason(harness_->Prefill(Request(2)).status()), "CACHE_DOWN");
  harness_->StartCache();
  Answer second;
  Until([&] {
    second = harness_->Prefill(Request(1));
    return second.ok() || !absl::IsUnavailable(second.status());
  });
  ASSERT_THAT(second, IsOk());
  EXPECT_FALSE(second->cached());
  EXPECT_NE(second->handle().epoch(), first->handle().epoch());
  EXPECT_NE(harness_->Map(second->handle()), nullptr);
}

// A controller that says what the test says.
class FixedPlan final : public services::PlanWatcher {
 public:
  std::shared_ptr<const budget::Plan> Current() const override {
    const std::lock_guard lock(mu_);
    return plan_;
  }
  void Report(const v1::ReportRequest& report) override {
    const std::lock_guard lock(mu_);
    reports_.push_back(report);
  }
  void Set(const budget::Plan& plan) {
    const std::lock_guard lock(mu_);
    plan_ = std::make_shared<const budget::Plan>(plan);
  }
  std::vector<v1::ReportRequest> reports() const {
    const std::lock_guard lock(mu_);
    return reports_;
  }

 private:
  mutable std::mutex mu_;
  std::shared_ptr<const budget::Plan> plan_;
  std::vector<v1::ReportRequest> reports_;
};

TEST_F(PrefillQueueTest, FollowsThePlanAndTellsWhatCameOfIt) {
  const auto plans = std::make_shared<FixedPlan>();
  PrefillHarnessOptions options;
  options.service.plans = plans;
  options.service.report_period = std::chrono::milliseconds(20);
  Start(options);
  const model::ModelConfig& config = harness_->model->config();
  v1::PrefillRequest request = Request(1);
  request.clear_keep();
  const Answer before = harness_->Prefill(request);
  ASSERT_THAT(before, IsOk());
  EXPECT_EQ(before->budget(), 64);
  EXPECT_EQ(before->provenance().plan_generation(), 0U);

  budget::Plan plan;
  plan.generation = 7;
  plan.model_fingerprint = harness_->model->fingerprint();
  plan.budget = 5;
  plan.layer_weights.assign(static_cast<std::size_t>(config.layers), 1);
  plans->Set(plan);
  harness_->service->Begin([] {});
  const Answer after = harness_->Prefill(request);
  ASSERT_THAT(after, IsOk());
  EXPECT_EQ(after->budget(), 5);
  EXPECT_EQ(after->kept().pairs(), 5 * config.layers * config.kv_heads);
  EXPECT_EQ(after->provenance().plan_generation(), 7U);

  v1::PrefillObservation seen;
  Until([&] {
    for (const v1::ReportRequest& report : plans->reports()) {
      if (report.prefill().prefills() > 0) seen = report.prefill();
    }
    return seen.prefills() > 0;
  });
  EXPECT_EQ(seen.prefills(), 1);
  EXPECT_EQ(seen.model_fingerprint(), harness_->model->fingerprint());
  EXPECT_DOUBLE_EQ(seen.mass(), after->kept().mass());
  EXPECT_EQ(seen.layer_mass_size(), config.layers);
  EXPECT_EQ(seen.preference_size(), config.layers * config.kv_heads);
}

}  // namespace
}  // namespace maskkv::testing
