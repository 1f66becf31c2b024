// SPDX-License-Identifier: Apache-2.0
//
// What a handler reads of a call and passes on, over real channels.
#include "services/common/call.h"

#include <gmock/gmock.h>
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "core/base/error.h"
#include "tests/integration/test_service.h"

namespace maskkv::services {
namespace {

using namespace std::chrono_literals;
using maskkv::testing::CallPrefill;
using maskkv::testing::Gate;
using maskkv::testing::IsOk;
using maskkv::testing::StatusIs;
using ::testing::_;
using ::testing::MatchesRegex;

constexpr char kTrace[] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

class CallTest : public ::testing::Test {
 protected:
  // What the handler saw.
  struct Seen {
    std::string tenant, request_id, log_id, trace;
    std::optional<std::chrono::steady_clock::time_point> deadline;
  };

  void SetUp() override {
    service_.on_prefill = [this](const Call& call, const auto&, auto&) {
      seen_ = {call.tenant(), call.request_id(), call.log_id(), call.trace_parent(),
               call.deadline()};
      return call.Alive();
    };
    grpc::Service* const services[] = {&service_};
    MASKKV_ASSERT_OK_AND_ASSIGN(Server server, Server::Start({}, services, registry_));
    server_.emplace(std::move(server));
    channel_ = OpenChannel(server_->address());
  }

  absl::Status With(const std::vector<std::pair<std::string, std::string>>& metadata,
                    const std::string& request_id = "") {
    v1::PrefillRequest request;
    request.set_request_id(request_id);
    return CallPrefill(channel_, request, [&](grpc::ClientContext& context) {
      for (const auto& [key, value] : metadata) context.AddMetadata(key, value);
    });
  }

  telemetry::Registry registry_;
  testing::TestService service_;
  std::optional<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  Seen seen_;
};

TEST_F(CallTest, WithoutMetadataThereAreDefaults) {
  EXPECT_THAT(With({}), IsOk());
  EXPECT_EQ(seen_.tenant, "default");
  EXPECT_EQ(seen_.trace, "");
  EXPECT_THAT(seen_.request_id, MatchesRegex("[0-9a-f]{32}"));
  const std::string first = seen_.request_id;
  EXPECT_THAT(With({}), IsOk());
  EXPECT_NE(seen_.request_id, first);
}

TEST_F(CallTest, TenantTraceAndRequestIdAreRead) {
  EXPECT_THAT(With({{"maskkv-tenant", "team-a.x_1"}, {"traceparent", kTrace}}, "question 7"),
              IsOk());
  EXPECT_EQ(seen_.tenant, "team-a.x_1");
  EXPECT_EQ(seen_.trace, kTrace);
  EXPECT_EQ(seen_.request_id, "question 7");
  EXPECT_EQ(seen_.log_id, "question 7");
}

TEST_F(CallTest, LogsNameTheRequestThatACallIsMadeFor) {
  EXPECT_THAT(With({{"maskkv-request-id", "question 7"}}, "part 2"), IsOk());
  EXPECT_EQ(seen_.request_id, "part 2");
  EXPECT_EQ(seen_.log_id, "question 7");
  EXPECT_THAT(With({{"maskkv-request-id", "question 7"}}), IsOk());
  EXPECT_EQ(seen_.request_id, "question 7");
  EXPECT_THAT(With({{"maskkv-request-id", "a"}, {"maskkv-request-id", "b"}}, "part 2"), IsOk());
  EXPECT_EQ(seen_.log_id, "part 2");
}

TEST_F(CallTest, MalformedTenantsAreRefused) {
  const std::string longest(63, 'a');
  EXPECT_THAT(With({{"maskkv-tenant", longest}}), IsOk());
  for (const std::string& tenant : {longest + "a", std::string("-a"), std::string(".a"),
                                    std::string("A"), std::string("a b"), std::string("a/b")}) {
    const absl::Status status = With({{"maskkv-tenant", tenant}});
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument, _)) << tenant;
    EXPECT_EQ(ErrorReason(status), "BAD_METADATA");
    EXPECT_EQ(FactsOf(status).at("field"), "maskkv-tenant");
  }
  EXPECT_EQ(ErrorReason(With({{"maskkv-tenant", "a"}, {"maskkv-tenant", "b"}})), "BAD_METADATA");
}

TEST_F(CallTest, MalformedTracesAreDropped) {
  const std::string trace = kTrace;
  std::vector<std::string> bad{"", "00", trace + "-00", trace + "0", trace.substr(1)};
  for (const auto& [at, with] :
       std::vector<std::pair<std::size_t, std::string>>{{0, "ff"},
                                                        {2, "_"},
                                                        {3, "0AF7"},
                                                        {35, "x"},
                                                        {53, "0g"},
                                                        {3, std::string(32, '0')},
                                                        {36, std::string(16, '0')}}) {
    bad.push_back(std::string(trace).replace(at, with.size(), with));
  }
  for (const std::string& value : bad) {
    EXPECT_THAT(With({{"traceparent", value}}), IsOk());
    EXPECT_EQ(seen_.trace, "") << value;
  }
  EXPECT_THAT(With({{"traceparent", kTrace}, {"traceparent", kTrace}}), IsOk());
  EXPECT_EQ(seen_.trace, "");
  const std::string later = std::string(trace).replace(0, 2, "01") + "-more";
  EXPECT_THAT(With({{"traceparent", later}}), IsOk());
  EXPECT_EQ(seen_.trace, later);
}

TEST_F(CallTest, RequestIdsHaveBounds) {
  EXPECT_THAT(With({}, std::string(128, 'a')), IsOk());
  for (const std::string& id :
       {std::string(129, 'a'), std::string("a\n"), std::string("\xC3\xA9")}) {
    const absl::Status status = With({}, id);
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument, _));
    EXPECT_EQ(ErrorReason(status), "BAD_REQUEST_ID");
  }
}

TEST_F(CallTest, ADeadlineIsSeenAndOneTooFarAwayIsNone) {
  EXPECT_THAT(With({}), IsOk());
  ASSERT_TRUE(seen_.deadline.has_value());
  const auto left = *seen_.deadline - std::chrono::steady_clock::now();
  EXPECT_LT(left, 61s);
  EXPECT_GT(left, 0s);
  EXPECT_THAT(CallPrefill(channel_, {},
                          [](auto& context) {
                            context.set_deadline(std::chrono::system_clock::time_point::max());
                          }),
              IsOk());
  EXPECT_FALSE(seen_.deadline.has_value());
}

TEST_F(CallTest, TimeoutsThatOverflowClocksAreNoDeadline) {
  EXPECT_THAT(CallPrefill(channel_, {},
                          [](auto& context) {
                            gpr_timespec far = gpr_now(GPR_CLOCK_REALTIME);
                            far.tv_sec += 99'000'000LL * 3600;
                            context.set_deadline(far);
                          }),
              IsOk());
  EXPECT_FALSE(seen_.deadline.has_value());
}

TEST_F(CallTest, CancellationIsSeen) {
  Gate started, never, ended;
  absl::Status ending;
  service_.on_prefill = [&](const Call& call, const auto&, auto&) {
    started.Open();
    ending = never.WaitWhileAlive(call);
    ended.Open();
    return ending;
  };
  grpc::ClientContext context;  // outlives TryCancel
  auto running = std::async(std::launch::async, [&] {
    v1::PrefillResponse response;
    return FromGrpc(v1::PrefillService::NewStub(channel_)->Prefill(&context, {}, &response));
  });
  started.Wait();
  context.TryCancel();
  EXPECT_THAT(running.get(), StatusIs(absl::StatusCode::kCancelled, _));
  ended.Wait();
  server_.reset();  // the handler has left this scope
  EXPECT_THAT(ending, StatusIs(absl::StatusCode::kCancelled, _));
}

TEST_F(CallTest, ADeadlineThatPassesIsSeen) {
  Gate never, ended;
  std::atomic<int> entered{0};
  absl::Status ending;
  service_.on_prefill = [&](const Call& call, const auto&, auto&) {
    const bool first = entered++ == 0;
    const absl::Status alive = never.WaitWhileAlive(call);
    if (first) ending = alive;
    if (first) ended.Open();
    return alive;
  };
  // A deadline that passes on the way to a busy server reaches no handler.
  for (auto deadline = 50ms; entered == 0; deadline *= 2) {
    EXPECT_THAT(CallPrefill(channel_, {},
                            [&](auto& context) {
                              context.set_deadline(std::chrono::system_clock::now() + deadline);
                            }),
                StatusIs(absl::StatusCode::kDeadlineExceeded, _));
  }
  ended.Wait();
  server_.reset();  // the handlers have left this scope
  EXPECT_TRUE(absl::IsDeadlineExceeded(ending) || absl::IsCancelled(ending)) << ending;
}

TEST_F(CallTest, ManyThreadsMayLookWhetherOneCallIsAlive) {
  service_.on_prefill = [&](const Call& call, const auto&, auto&) {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] {
        for (int j = 0; j < 200; ++j) EXPECT_THAT(call.Alive(), IsOk());
      });
    }
    return absl::OkStatus();
  };
  EXPECT_THAT(With({}), IsOk());
}

TEST_F(CallTest, WhatIsPassedOnArrivesAtTheNextService) {
  // The first service calls the second for the caller.
  testing::TestService front;
  front.on_prefill = [&](const Call& call, const auto&, auto&) {
    return CallPrefill(channel_, {}, [&](auto& context) { call.PrepareClient(context); });
  };
  telemetry::Registry registry;
  grpc::Service* const services[] = {&front};
  MASKKV_ASSERT_OK_AND_ASSIGN(const Server server, Server::Start({}, services, registry));
  v1::PrefillRequest request;
  request.set_request_id("r1");
  EXPECT_THAT(CallPrefill(OpenChannel(server.address()), request,
                          [](auto& context) {
                            context.AddMetadata("maskkv-tenant", "team-a");
                            context.AddMetadata("traceparent", kTrace);
                            context.set_deadline(std::chrono::system_clock::now() + 20s);
                          }),
              IsOk());
  EXPECT_EQ(seen_.tenant, "team-a");
  EXPECT_EQ(seen_.trace, kTrace);
  EXPECT_EQ(seen_.request_id, "r1");
  EXPECT_EQ(seen_.log_id, "r1");
  ASSERT_TRUE(seen_.deadline.has_value());
  EXPECT_LE(*seen_.deadline - std::chrono::steady_clock::now(), 21s);
}

}  // namespace
}  // namespace maskkv::services
