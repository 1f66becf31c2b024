// SPDX-License-Identifier: Apache-2.0
//
// The budget controller over real channels, and the watcher that prefill has of it.
#include "services/budget/budget_service.h"

#include <gmock/gmock.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "core/base/error.h"
#include "core/base/file.h"
#include "maskkv/v1/budget.grpc.pb.h"
#include "services/common/plan_proto.h"
#include "services/common/plan_watcher.h"
#include "services/common/server.h"
#include "services/common/status.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_folder.h"

namespace maskkv::budget_service {
namespace {

using namespace std::chrono_literals;
using maskkv::testing::IsOk;
using maskkv::testing::TempFolder;
using ::testing::HasSubstr;

const std::string kModel(64, 'a');

void WaitUntil(const std::function<bool()>& condition) {
  const auto give_up = std::chrono::steady_clock::now() + 60s;
  while (!condition() && std::chrono::steady_clock::now() < give_up) std::this_thread::yield();
  EXPECT_TRUE(condition());
}

budget::Policy With(std::int64_t budget) {
  budget::Policy policy;
  policy.budget = budget;
  return policy;
}

// The daemon but for its main: it may be stopped and started again at the same address.
class BudgetServiceTest : public ::testing::Test {
 protected:
  void Start(std::chrono::milliseconds tick = 0ms) {
    registry_ = std::make_unique<telemetry::Registry>();
    BudgetServiceOptions options;
    options.keeper.model = {
        .fingerprint = kModel, .importance = {0.4, 0.1, 0.3}, .layers = 3, .kv_heads = 2};
    options.keeper.state_file = folder_.File("state.json");
    options.keeper.audit_file = folder_.File("audit.jsonl");
    options.tick = tick;
    auto service = BudgetService::Start(options, *registry_);
    ASSERT_THAT(service, IsOk());
    service_.emplace(*std::move(service));
    services::ServerOptions server;
    server.listen = {"127.0.0.1:0", "unix:" + Socket()};
    const std::array<grpc::Service*, 1> registered{&service_->service()};
    auto started = services::Server::Start(server, registered, *registry_);
    ASSERT_THAT(started, IsOk());
    server_.emplace(*std::move(started));
    stub_ = v1::BudgetService::NewStub(services::OpenChannel(server_->address()));
  }
  void Stop() {
    service_->BeginDrain();
    server_->Drain(10s);
    server_.reset();
    service_.reset();
  }
  std::string Socket() const { return folder_.File("budget.sock"); }

  absl::StatusOr<v1::GetPlanResponse> GetPlan() {
    grpc::ClientContext context;
    v1::GetPlanResponse response;
    const absl::Status status = services::FromGrpc(stub_->GetPlan(&context, {}, &response));
    if (!status.ok()) return status;
    return response;
  }
  absl::StatusOr<budget::Plan> SetPolicy(const v1::SetPolicyRequest& request) {
    grpc::ClientContext context;
    context.AddMetadata("maskkv-tenant", "acme");
    v1::SetPolicyResponse response;
    const absl::Status status = services::FromGrpc(stub_->SetPolicy(&context, request, &response));
    if (!status.ok()) return status;
    return services::ReadPlan(response.plan());
  }
  absl::StatusOr<budget::Plan> SetPolicy(const budget::Policy& policy,
                                         std::optional<std::uint64_t> expected = std::nullopt) {
    v1::SetPolicyRequest request;
    services::FillPolicy(policy, *request.mutable_policy());
    if (expected) request.set_expected_generation(*expected);
    return SetPolicy(request);
  }
  absl::StatusOr<std::uint64_t> Report(const v1::ReportRequest& request) {
    grpc::ClientContext context;
    v1::ReportResponse response;
    const absl::Status status = services::FromGrpc(stub_->Report(&context, request, &response));
    if (!status.ok()) return status;
    return response.generation();
  }

  TempFolder folder_;
  std::unique_ptr<telemetry::Registry> registry_;
  std::optional<BudgetService> service_;
  std::optional<services::Server> server_;
  std::unique_ptr<v1::BudgetService::Stub> stub_;
};

v1::ReportRequest FullCache() {
  v1::ReportRequest report;
  services::FillReport({.reporter = "cached",
                        .period_seconds = 5,
                        .seen = budget::CacheObservation{1000, 1000, 1000, 3, 4}},
                       report);
  return report;
}

v1::ReportRequest SomePrefills() {
  v1::ReportRequest report;
  services::FillReport({.reporter = "prefill",
                        .period_seconds = 5,
                        .seen = budget::PrefillObservation{.model_fingerprint = kModel,
                                                           .prefills = 4,
                                                           .mass = 0.9,
                                                           .layer_mass = {0.9, 0.8, 1},
                                                           .preference = {0.5, 0.4, 1, 0, 0.2, 0.3},
                                                           .queue_seconds = 0.25,
                                                           .waiting = 1}},
                       report);
  return report;
}

TEST_F(BudgetServiceTest, GetPlanAnswersPlanAndPolicy) {
  Start();
  MASKKV_ASSERT_OK_AND_ASSIGN(const v1::GetPlanResponse response, GetPlan());
  MASKKV_ASSERT_OK_AND_ASSIGN(const budget::Plan plan, services::ReadPlan(response.plan()));
  MASKKV_ASSERT_OK_AND_ASSIGN(const budget::Policy policy, services::ReadPolicy(response.policy()));
  EXPECT_EQ(plan, *service_->keeper().Current().plan);
  EXPECT_EQ(policy, budget::Policy{});
  EXPECT_EQ(plan.model_fingerprint, kModel);
}

TEST_F(BudgetServiceTest, AWatchGetsTheCurrentPlanAtOnceAndLaterOnes) {
  Start();
  grpc::ClientContext context;
  const auto reader = stub_->WatchPlan(&context, {});
  v1::WatchPlanResponse response;
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.plan().generation(), 1U);
  // A loop's change.
  ASSERT_THAT(Report(FullCache()), IsOk());
  service_->keeper().Tick();
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.plan().generation(), 2U);
  EXPECT_EQ(response.plan().cause(), "pressure");
  // An operator's.
  ASSERT_THAT(SetPolicy(With(100)), IsOk());
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.plan().generation(), 3U);
  EXPECT_EQ(response.plan().budget(), 100);
  context.TryCancel();
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_EQ(services::FromGrpc(reader->Finish()).code(), absl::StatusCode::kCancelled);
}

TEST_F(BudgetServiceTest, AWatchHonoursItsDeadlineAndTheDrain) {
  Start();
  v1::WatchPlanResponse response;
  {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + 300ms);
    const auto reader = stub_->WatchPlan(&context, {});
    while (reader->Read(&response)) {
    }
    EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  }
  grpc::ClientContext context;
  const auto reader = stub_->WatchPlan(&context, {});
  ASSERT_TRUE(reader->Read(&response));
  Stop();
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_EQ(ErrorReason(services::FromGrpc(reader->Finish())), "DRAINING");
}

TEST_F(BudgetServiceTest, SetPolicyIsIdempotentAndAudited) {
  Start();
  MASKKV_ASSERT_OK_AND_ASSIGN(const budget::Plan first, SetPolicy(With(100)));
  MASKKV_ASSERT_OK_AND_ASSIGN(const budget::Plan second, SetPolicy(With(100), 2));
  EXPECT_EQ(first.generation, 2U);
  EXPECT_EQ(second, first);
  const std::string audit = *ReadFile(folder_.File("audit.jsonl"), 1 << 20);
  EXPECT_THAT(audit, HasSubstr(R"("result":"applied","tenant":"acme","peer":"ipv4")"));
  EXPECT_THAT(audit, HasSubstr(R"("generation_before":1,"generation_after":2)"));
}

TEST_F(BudgetServiceTest, RefusesPoliciesThatAreNone) {
  Start();
  EXPECT_EQ(ErrorReason(SetPolicy(v1::SetPolicyRequest()).status()), "BAD_POLICY");
  v1::SetPolicyRequest no_amount;
  services::FillPolicy(With(100), *no_amount.mutable_policy());
  no_amount.mutable_policy()->clear_amount();
  EXPECT_EQ(ErrorReason(SetPolicy(no_amount).status()), "BAD_POLICY");
  v1::SetPolicyRequest no_coverage = no_amount;
  no_coverage.mutable_policy()->set_coverage(0);
  EXPECT_EQ(ErrorReason(SetPolicy(no_coverage).status()), "BAD_POLICY");
  budget::Policy policy;
  policy.alpha = std::nan("");
  const absl::Status status = SetPolicy(policy).status();
  EXPECT_EQ(ErrorReason(status), "BAD_POLICY");
  EXPECT_EQ(FactsOf(status)["field"], "alpha");
  v1::SetPolicyRequest comment;
  services::FillPolicy(With(100), *comment.mutable_policy());
  comment.set_comment("two\nlines");
  EXPECT_EQ(SetPolicy(comment).status().code(), absl::StatusCode::kInvalidArgument);
  const absl::Status moved = SetPolicy(With(100), 7).status();
  EXPECT_EQ(moved.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ErrorReason(moved), "GENERATION_MOVED");
  EXPECT_EQ(service_->keeper().Current().plan->generation, 1U);
}

TEST_F(BudgetServiceTest, AStateFileThatCannotBeWrittenChangesNothing) {
  Start();
  // Its folder is gone: no temporary file can be made.
  std::filesystem::rename(folder_.path(), folder_.path() + "-away");
  EXPECT_EQ(ErrorReason(SetPolicy(With(100)).status()), "STATE_NOT_WRITTEN");
  EXPECT_EQ(service_->keeper().Current().plan->generation, 1U);
  std::filesystem::rename(folder_.path() + "-away", folder_.path());
  EXPECT_THAT(SetPolicy(With(100)), IsOk());
}

TEST_F(BudgetServiceTest, TakesReportsAndRefusesBadOnes) {
  Start();
  EXPECT_EQ(*Report(SomePrefills()), 1U);
  EXPECT_EQ(*Report(FullCache()), 1U);
  const auto refused = [&](const std::function<void(v1::ReportRequest&)>& spoil,
                           const std::string& reason) {
    v1::ReportRequest report = SomePrefills();
    spoil(report);
    EXPECT_EQ(ErrorReason(Report(report).status()), reason);
  };
  refused([](auto& r) { r.clear_observation(); }, "BAD_REPORT");
  refused([](auto& r) { r.clear_period(); }, "BAD_REPORT");
  refused([](auto& r) { r.clear_reporter(); }, "BAD_REPORT");
  refused([](auto& r) { r.mutable_period()->set_seconds(-1); }, "BAD_REPORT");
  refused([](auto& r) { r.mutable_prefill()->set_mass(std::nan("")); }, "BAD_REPORT");
  refused([](auto& r) { r.mutable_prefill()->set_prefills(-1); }, "BAD_REPORT");
  refused([](auto& r) { r.mutable_prefill()->add_layer_mass(1); }, "BAD_REPORT");
  refused([](auto& r) { r.mutable_prefill()->set_preference(0, 1e300); }, "BAD_REPORT");
  refused([](auto& r) { r.mutable_cache()->set_capacity_bytes(0); }, "BAD_REPORT");
  refused([](auto& r) { r.mutable_prefill()->set_model_fingerprint(std::string(64, 'b')); },
          "MODEL_MISMATCH");
  EXPECT_THAT(registry_->Scrape(),
              HasSubstr("maskkv_budget_reports_total{result=\"accepted\"} 2\n"));
}

TEST_F(BudgetServiceTest, TooManyReportersAreRefused) {
  Start();
  v1::ReportRequest report = FullCache();
  for (std::size_t i = 0; i < budget::Tuning{}.max_reporters; ++i) {
    report.set_reporter("cached-" + std::to_string(i));
    ASSERT_THAT(Report(report), IsOk());
  }
  report.set_reporter("one more");
  EXPECT_EQ(ErrorReason(Report(report).status()), "TOO_MANY_REPORTERS");
}

TEST_F(BudgetServiceTest, ARestartKeepsGenerationAndPolicy) {
  Start();
  ASSERT_THAT(SetPolicy(With(100)), IsOk());
  MASKKV_ASSERT_OK_AND_ASSIGN(const v1::GetPlanResponse before, GetPlan());
  Stop();
  Start();
  MASKKV_ASSERT_OK_AND_ASSIGN(const v1::GetPlanResponse after, GetPlan());
  EXPECT_EQ(after.SerializeAsString(), before.SerializeAsString());
  MASKKV_ASSERT_OK_AND_ASSIGN(const budget::Plan next, SetPolicy(With(101)));
  EXPECT_EQ(next.generation, 3U);
}

TEST_F(BudgetServiceTest, ACorruptStateFileIsRefused) {
  ASSERT_THAT(WriteFileAtomically(folder_.File("state.json"), R"({"format": 5})"), IsOk());
  telemetry::Registry registry;
  BudgetServiceOptions options;
  options.keeper.state_file = folder_.File("state.json");
  EXPECT_THAT(BudgetService::Start(options, registry),
              maskkv::testing::StatusIs(absl::StatusCode::kInvalidArgument,
                                        HasSubstr("state.json: field format: expected")));
}

TEST_F(BudgetServiceTest, TheTickerLetsTheLoopsStep) {
  Start(5ms);
  ASSERT_THAT(Report(FullCache()), IsOk());
  WaitUntil([&] { return service_->keeper().Current().plan->generation == 2; });
  EXPECT_EQ(service_->keeper().Current().plan->cause, "pressure");
}

TEST_F(BudgetServiceTest, AWatcherFollowsReportsAndSurvivesAbsenceAndRestart) {
  // Nobody is there yet.
  const auto watcher = services::PlanWatcher::Start("unix:" + Socket(), "prefill");
  EXPECT_EQ(watcher->Current(), nullptr);
  for (int i = 0; i < 100; ++i) watcher->Report(FullCache());
  Start();
  WaitUntil([&] { return watcher->Current() != nullptr; });
  EXPECT_EQ(*watcher->Current(), *service_->keeper().Current().plan);
  ASSERT_THAT(SetPolicy(With(100)), IsOk());
  WaitUntil([&] { return watcher->Current()->generation == 2; });
  EXPECT_EQ(watcher->Current()->budget, 100);
  WaitUntil([&] {
    watcher->Report(SomePrefills());
    return registry_->Scrape().find("maskkv_budget_reports_total{result=\"accepted\"} 0\n") ==
           std::string::npos;
  });
  Stop();
  EXPECT_EQ(watcher->Current()->generation, 2U) << "the last plan stays in force";
  Start();
  ASSERT_THAT(SetPolicy(With(120)), IsOk());
  WaitUntil([&] { return watcher->Current()->generation == 3; });
  // Even one that starts anew at 1, without its state.
  Stop();
  std::filesystem::remove(folder_.File("state.json"));
  Start();
  WaitUntil([&] { return watcher->Current()->generation == 1; });
  EXPECT_EQ(watcher->Current()->budget, 64);
}

TEST_F(BudgetServiceTest, AWatcherOfNobodyHasNoPlan) {
  const auto watcher = services::PlanWatcher::Start("", "prefill");
  watcher->Report(FullCache());
  EXPECT_EQ(watcher->Current(), nullptr);
}

TEST_F(BudgetServiceTest, AWatcherEndsAtOnceWhateverItWaitsFor) {
  Start();
  for (int i = 0; i < 20; ++i) {
    const auto watcher = services::PlanWatcher::Start(server_->address(), "prefill");
    if (i % 2 == 0) WaitUntil([&] { return watcher->Current() != nullptr; });
    watcher->Report(FullCache());
  }
  // Nobody listens there.
  services::PlanWatcher::Start("unix:" + folder_.File("none.sock"), "prefill")->Report(FullCache());
}

}  // namespace
}  // namespace maskkv::budget_service
