// SPDX-License-Identifier: Apache-2.0
//
// What every server of ours has, over real channels: health, reflection, metrics, limits, draining.
#include "services/common/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/error.h"
#include "maskkv/v1/budget.grpc.pb.h"
#include "tests/integration/raw_call.h"
#include "tests/integration/test_service.h"

namespace maskkv::services {
namespace {

using namespace std::chrono_literals;
using maskkv::testing::CallPrefill;
using maskkv::testing::Gate;
using maskkv::testing::HealthOf;
using maskkv::testing::IsOk;
using maskkv::testing::RawCall;
using maskkv::testing::StatusIs;
using ::testing::_;
using ::testing::HasSubstr;

class ServerTest : public ::testing::Test {
 protected:
  void Start(const ServerOptions& options = {}) {
    grpc::Service* const services[] = {&service_};
    auto started = Server::Start(options, services, registry_);
    ASSERT_TRUE(started.ok()) << started.status();
    server_.emplace(std::move(*started));
    channel_ = OpenChannel(server_->address());
  }

  // The value of a series, 0 if it is not there. A call's status reaches its client before it is
  // counted, so tests wait for a value.
  double Value(const std::string& series) const {
    const std::string text = absl::StrCat("\n", registry_.Scrape());
    const std::size_t at = text.find(std::string("\n").append(series).append(" "));
    return at == std::string::npos ? 0 : std::stod(text.substr(at + series.size() + 2));
  }
  void WaitForValue(const std::string& series, double value) const {
    const auto give_up = std::chrono::steady_clock::now() + 60s;
    while (Value(series) < value && std::chrono::steady_clock::now() < give_up) {
      std::this_thread::yield();
    }
    EXPECT_EQ(Value(series), value) << series;
  }
  static std::string Handled(const std::string& code) {
    return absl::StrCat(
        "grpc_server_handled_total{grpc_code=\"", code,
        "\",grpc_method=\"Prefill\",grpc_service=\"maskkv.v1.PrefillService\",grpc_type="
        "\"unary\"}");
  }

  telemetry::Registry registry_;
  testing::TestService service_;
  std::optional<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
};

TEST_F(ServerTest, HealthFollowsReadinessAndLivenessIsThereFromTheStart) {
  Start();
  const std::vector<std::string> names{"", "readiness", "maskkv.v1.PrefillService"};
  EXPECT_EQ(HealthOf(channel_, "liveness"), "SERVING");
  for (const std::string& name : names) EXPECT_EQ(HealthOf(channel_, name), "NOT_SERVING");
  EXPECT_EQ(Value("maskkv_ready"), 0);

  server_->SetReady(true);
  for (const std::string& name : names) EXPECT_EQ(HealthOf(channel_, name), "SERVING");
  EXPECT_EQ(Value("maskkv_ready"), 1);

  server_->SetReady(false);
  for (const std::string& name : names) EXPECT_EQ(HealthOf(channel_, name), "NOT_SERVING");
  EXPECT_EQ(HealthOf(channel_, "liveness"), "SERVING");
  EXPECT_EQ(HealthOf(channel_, "nobody"), "NOT_FOUND");
}

TEST_F(ServerTest, ReflectionListsTheServices) {
  Start();
  EXPECT_THAT(
      testing::ListServices(channel_),
      ::testing::IsSupersetOf({"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection",
                               "maskkv.v1.PrefillService"}));
}

TEST_F(ServerTest, CallsAreCountedByMethodAndCode) {
  Start();
  EXPECT_THAT(CallPrefill(channel_), IsOk());
  EXPECT_THAT(CallPrefill(channel_), IsOk());
  service_.on_prefill = [](const auto&, const auto&, auto&) {
    return absl::NotFoundError("handle: expected to be known, found another");
  };
  EXPECT_THAT(CallPrefill(channel_), StatusIs(absl::StatusCode::kNotFound, _));
  WaitForValue(Handled("OK"), 2);
  WaitForValue(Handled("NOT_FOUND"), 1);
  const std::string labels =
      "{grpc_method=\"Prefill\",grpc_service=\"maskkv.v1.PrefillService\",grpc_type=\"unary\"}";
  EXPECT_EQ(Value(absl::StrCat("grpc_server_started_total", labels)), 3);
  EXPECT_EQ(Value(absl::StrCat("grpc_server_handling_seconds_count", labels)), 3);
}

TEST_F(ServerTest, MethodsThatDoNotExistMakeNoSeriesOfTheirOwn) {
  Start();
  for (int i = 0; i < 20; ++i) {
    const auto answer = RawCall(channel_, absl::StrFormat("/invented.Service/Method%d", i), "");
    EXPECT_THAT(answer.status, StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("method")));
    EXPECT_EQ(ErrorReason(answer.status), "UNKNOWN_METHOD");
  }
  const std::string unknown =
      "grpc_server_handled_total{grpc_code=\"UNIMPLEMENTED\",grpc_method=\"unknown\","
      "grpc_service=\"unknown\",grpc_type=\"unary\"}";
  WaitForValue(unknown, 20);
  EXPECT_THAT(registry_.Scrape(), ::testing::Not(HasSubstr("invented")));
  for (const char* odd :
       {"/", "//", "/a", "/maskkv.v1.PrefillService/", "/maskkv.v1.None/Prefill"}) {
    EXPECT_THAT(RawCall(channel_, odd, "").status, StatusIs(absl::StatusCode::kUnimplemented, _));
  }
  WaitForValue(unknown, 25);
}

TEST_F(ServerTest, WhatAHandlerThrowsIsAnInternalError) {
  service_.on_prefill = [](const auto&, const auto&, auto&) -> absl::Status {
    throw std::bad_alloc();
  };
  Start();
  const absl::Status status = CallPrefill(channel_);
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kInternal, _));
  EXPECT_EQ(ErrorReason(status), "INTERNAL");
}

TEST_F(ServerTest, MessagesThatAreTooLongOrNoProtobufAreRefused) {
  ServerOptions options;
  options.max_message_bytes = 1000;
  Start(options);
  v1::PrefillRequest request;
  request.mutable_prompt()->mutable_document()->set_document(std::string(1001, 'x'));
  EXPECT_THAT(CallPrefill(channel_, request),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("larger than max")));
  const auto garbage = RawCall(channel_, "/maskkv.v1.PrefillService/Prefill", "\xFF\xFF\xFF");
  EXPECT_FALSE(garbage.status.ok());
  EXPECT_THAT(CallPrefill(channel_), IsOk());
}

TEST_F(ServerTest, MoreCallsThanThreadsAreRefusedAtOnceAndHealthStillAnswers) {
  constexpr int kThreads = 4;
  Gate gate;
  std::atomic<int> running{0};
  service_.on_prefill = [&](const auto& call, const auto&, auto&) {
    ++running;
    return gate.WaitWhileAlive(call);
  };
  ServerOptions options;
  options.max_threads = kThreads;
  Start(options);
  server_->SetReady(true);
  std::vector<std::future<absl::Status>> calls;
  for (int i = 0; i < kThreads; ++i) {
    calls.push_back(std::async(std::launch::async, [&] { return CallPrefill(channel_); }));
  }
  while (running < kThreads) std::this_thread::yield();
  for (int i = 0; i < 10; ++i) {
    const absl::Status refused = CallPrefill(channel_);
    EXPECT_THAT(refused, StatusIs(absl::StatusCode::kResourceExhausted, _));
    EXPECT_EQ(ErrorReason(refused), "SERVER_BUSY");
    EXPECT_TRUE(RetryAfter(refused).has_value());
    EXPECT_EQ(HealthOf(channel_, "readiness"), "SERVING");
  }
  gate.Open();
  for (auto& call : calls) EXPECT_THAT(call.get(), IsOk());
  EXPECT_EQ(running, kThreads);
  // Threads come back as their calls are finished.
  absl::Status status;
  while (!(status = CallPrefill(channel_)).ok()) EXPECT_EQ(ErrorReason(status), "SERVER_BUSY");
}

TEST_F(ServerTest, DrainingFinishesWhatRunsAndRefusesWhatComes) {
  Gate started, gate;
  service_.on_prefill = [&](const auto& call, const auto&, auto&) {
    started.Open();
    return gate.WaitWhileAlive(call);
  };
  Start();
  server_->SetReady(true);
  auto running = std::async(std::launch::async, [&] { return CallPrefill(channel_); });
  started.Wait();
  auto drained = std::async(std::launch::async, [&] { server_->Drain(60s); });
  while (Value("maskkv_draining") == 0) std::this_thread::yield();

  const absl::Status refused = CallPrefill(channel_);
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kUnavailable, HasSubstr("draining")));
  EXPECT_EQ(ErrorReason(refused), "DRAINING");
  EXPECT_EQ(HealthOf(channel_, "readiness"), "NOT_SERVING");
  EXPECT_EQ(HealthOf(OpenChannel(server_->address()), "liveness"), "SERVING");
  EXPECT_EQ(Value("maskkv_ready"), 0);
  server_->SetReady(true);  // too late
  EXPECT_EQ(Value("maskkv_ready"), 0);

  gate.Open();
  EXPECT_THAT(running.get(), IsOk());
  drained.get();
  EXPECT_THAT(CallPrefill(channel_), StatusIs(absl::StatusCode::kUnavailable, _));
}

TEST_F(ServerTest, DrainingCancelsWhatRunsPastTheDeadline) {
  Gate started, never;
  service_.on_prefill = [&](const auto& call, const auto&, auto&) {
    started.Open();
    return never.WaitWhileAlive(call);
  };
  Start();
  auto running = std::async(std::launch::async, [&] { return CallPrefill(channel_); });
  started.Wait();
  server_->Drain(10ms);
  EXPECT_FALSE(running.get().ok());
  EXPECT_EQ(Value(Handled("CANCELLED")), 1);
  server_->Drain(10ms);
}

TEST_F(ServerTest, AnIdleServerDrainsAtOnceWhateverTheDeadline) {
  Start();
  EXPECT_THAT(CallPrefill(channel_), IsOk());
  server_->Drain(24h);
}

TEST_F(ServerTest, WatchersOfHealthDoNotHoldUpDraining) {
  Start();
  auto watching = std::async(std::launch::async,
                             [&] { return RawCall(channel_, "/grpc.health.v1.Health/Watch", ""); });
  WaitForValue(
      "grpc_server_started_total{grpc_method=\"Watch\",grpc_service=\"grpc.health.v1.Health\",grpc_"
      "type=\"server_stream\"}",
      1);
  server_->Drain(24h);
  EXPECT_FALSE(watching.get().status.ok());
}

TEST_F(ServerTest, NobodyCanPretendThatTheServerDrains) {
  Start();
  EXPECT_THAT(
      CallPrefill(channel_, {}, [](auto& context) { context.AddMetadata("maskkv-draining", "1"); }),
      IsOk());
}

TEST_F(ServerTest, SeveralAddressesServeTheSame) {
  const std::string socket =
      std::filesystem::temp_directory_path() / ("maskkv-server-" + std::to_string(::getpid()));
  ServerOptions options;
  options.listen = {"unix:" + socket, "127.0.0.1:0", "localhost:0"};
  Start(options);
  EXPECT_GT(server_->port(), 0);
  EXPECT_EQ(server_->address(), absl::StrFormat("127.0.0.1:%d", server_->port()));
  for (const std::string& address : {server_->address(), "unix:" + socket}) {
    EXPECT_THAT(CallPrefill(OpenChannel(address)), IsOk());
  }

  // A live socket is not taken over, a left one is.
  grpc::Service* const services[] = {&service_};
  options.listen = {"unix:" + socket};
  EXPECT_THAT(Server::Start(options, services, registry_).status(),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr(socket)));
  server_.reset();
  EXPECT_THAT(Server::Start(options, services, registry_).status(), IsOk());
  std::filesystem::remove(socket);
}

TEST_F(ServerTest, AnAddressThatIsTakenIsAnError) {
  Start();
  ServerOptions options;
  options.listen = {server_->address()};
  grpc::Service* const services[] = {&service_};
  const absl::Status taken = Server::Start(options, services, registry_).status();
  EXPECT_THAT(taken, StatusIs(absl::StatusCode::kUnavailable, HasSubstr("in use")));
  EXPECT_EQ(ErrorReason(taken), "ADDRESS_IN_USE");
  options.listen = {"0.0.0.0:0"};
  EXPECT_EQ(ErrorReason(Server::Start(options, services, registry_).status()), "PLAINTEXT_REFUSED");
  options.listen = {};
  EXPECT_EQ(ErrorReason(Server::Start(options, services, registry_).status()), "BAD_ADDRESS");
}

TEST_F(ServerTest, AChannelFindsAServerThatComesBack) {
  Start();
  ServerOptions options;
  options.listen = {server_->address()};
  EXPECT_THAT(CallPrefill(channel_), IsOk());
  server_.reset();
  EXPECT_THAT(CallPrefill(channel_), StatusIs(absl::StatusCode::kUnavailable, _));
  grpc::Service* const services[] = {&service_};
  MASKKV_ASSERT_OK_AND_ASSIGN(const Server again, Server::Start(options, services, registry_));
  EXPECT_THAT(CallPrefill(channel_, {}, [](auto& context) { context.set_wait_for_ready(true); }),
              IsOk());
}

TEST_F(ServerTest, TheNumberOfSeriesIsSmall) {
  Start();
  EXPECT_THAT(CallPrefill(channel_), IsOk());
  EXPECT_EQ(HealthOf(channel_, ""), "NOT_SERVING");
  const std::string text = registry_.Scrape();
  EXPECT_LT(std::count(text.begin(), text.end(), '\n'), 100);
}

}  // namespace
}  // namespace maskkv::services
