// SPDX-License-Identifier: Apache-2.0
#include "services/common/call_interceptor.h"

#include <google/protobuf/descriptor.h>
#include <grpcpp/support/server_interceptor.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "core/base/error.h"
#include "services/common/call.h"
#include "services/common/status.h"

namespace maskkv::services {
namespace {

using grpc::experimental::InterceptionHookPoints;
using grpc::experimental::InterceptorBatchMethods;
using grpc::experimental::ServerRpcInfo;
using telemetry::MetricSpec;
using telemetry::MetricType;

constexpr std::array<double, 12> kSeconds{0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 120};
constexpr std::array<MetricSpec, 3> kSpecs{{
    {"grpc_server_started_total", MetricType::kCounter, "1", "Calls that began.",
     "grpc_type,grpc_service,grpc_method"},
    {"grpc_server_handled_total", MetricType::kCounter, "1", "Calls that ended, by status code.",
     "grpc_type,grpc_service,grpc_method,grpc_code"},
    {"grpc_server_handling_seconds", MetricType::kHistogram, "seconds",
     "Time from a call's begin to its status.", "grpc_type,grpc_service,grpc_method", kSeconds},
}};

std::string_view TypeName(ServerRpcInfo::Type type) {
  switch (type) {
    case ServerRpcInfo::Type::UNARY:
      return "unary";
    case ServerRpcInfo::Type::CLIENT_STREAMING:
      return "client_stream";
    case ServerRpcInfo::Type::SERVER_STREAMING:
      return "server_stream";
    case ServerRpcInfo::Type::BIDI_STREAMING:
      return "bidi_stream";
  }
  return "unknown";
}

// An error that the library made itself carries no details: every thread busy (RESOURCE_EXHAUSTED),
// an exception in a handler (UNKNOWN), no such method, a message that does not parse or is too
// long.
grpc::Status WithDetails(const grpc::Status& status) {
  if (status.ok() || !status.error_details().empty()) return status;
  switch (status.error_code()) {
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      return ToGrpc(WithRetryAfter(
          MakeError(absl::StatusCode::kResourceExhausted, "SERVER_BUSY",
                    "server: expected a free thread, found all of them busy with other calls"),
          std::chrono::milliseconds(500)));
    case grpc::StatusCode::UNKNOWN:
      return ToGrpc(MakeError(absl::StatusCode::kInternal, "INTERNAL",
                              "server: expected an answer, found an internal error"));
    case grpc::StatusCode::UNIMPLEMENTED:
      return ToGrpc(MakeError(absl::StatusCode::kUnimplemented, "UNKNOWN_METHOD",
                              "method: expected one of this server, found another"));
    default:
      return ToGrpc(FromGrpc(status));
  }
}

class CallInterceptor final : public grpc::experimental::Interceptor {
 public:
  CallInterceptor(CallMetrics& metrics, const ServerRpcInfo& info)
      : metrics_(metrics),
        kind_(CallMetrics::KindOf(TypeName(info.type()), info.method())),
        draining_(metrics.draining()) {
    metrics_.Started(kind_);
  }

  // A call that never got as far as a status was cancelled.
  ~CallInterceptor() override { metrics_.Handled(kind_, code_, Seconds()); }

  void Intercept(InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::POST_RECV_INITIAL_METADATA)) {
      auto& metadata = *methods->GetRecvInitialMetadata();
      metadata.erase(kDrainingKey);
      if (draining_) metadata.emplace(kDrainingKey, "1");
    }
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS)) {
      const grpc::Status status = WithDetails(methods->GetSendStatus());
      if (!status.ok()) methods->ModifySendStatus(status);
      code_ = status.error_code();
    }
    methods->Proceed();
  }

 private:
  double Seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

  CallMetrics& metrics_;
  const CallMetrics::Kind kind_;
  const bool draining_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  int code_ = grpc::StatusCode::CANCELLED;
};

class CallInterceptorFactory final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit CallInterceptorFactory(CallMetrics& metrics) : metrics_(metrics) {}
  grpc::experimental::Interceptor* CreateServerInterceptor(ServerRpcInfo* info) override {
    return new CallInterceptor(metrics_, *info);
  }

 private:
  CallMetrics& metrics_;
};

}  // namespace

std::string GrpcCodeName(int code) {
  return absl::StatusCodeToString(code >= 0 && code <= 16 ? static_cast<absl::StatusCode>(code)
                                                          : absl::StatusCode::kUnknown);
}

std::span<const MetricSpec> CallMetricSpecs() { return kSpecs; }

CallMetrics::Kind CallMetrics::KindOf(std::string_view type, std::string_view full_name) {
  // "/package.Service/Method" as protobuf names it: "package.Service.Method". The health service
  // has no descriptors.
  const std::size_t slash = std::min(full_name.rfind('/'), full_name.size());
  const std::string_view service =
      full_name.substr(std::min<std::size_t>(1, slash), slash == 0 ? 0 : slash - 1);
  const std::string_view method = full_name.substr(std::min(slash + 1, full_name.size()));
  const bool known = full_name == "/grpc.health.v1.Health/Check" ||
                     full_name == "/grpc.health.v1.Health/Watch" ||
                     google::protobuf::DescriptorPool::generated_pool()->FindMethodByName(
                         absl::StrFormat("%s.%s", service, method)) != nullptr;
  if (!known) return {"unary", "unknown", "unknown"};
  return {std::string(type), std::string(service), std::string(method)};
}

CallMetrics::Series& CallMetrics::Find(const Kind& kind) {
  const auto [found, added] = series_.try_emplace(kind);
  if (added) {
    const telemetry::Labels labels{
        {"grpc_type", kind.type}, {"grpc_service", kind.service}, {"grpc_method", kind.method}};
    found->second.started = registry_.AddCounter(kSpecs[0], labels);
    found->second.seconds = registry_.AddHistogram(kSpecs[2], labels);
  }
  return found->second;
}

void CallMetrics::Started(const Kind& kind) {
  const std::lock_guard lock(mu_);
  Find(kind).started.Add();
  if (kind.ours()) ++under_way_;
}

void CallMetrics::Handled(const Kind& kind, int code, double seconds) {
  const std::lock_guard lock(mu_);
  Series& series = Find(kind);
  const auto [handled, added] = series.handled.try_emplace(code);
  if (added) {
    handled->second = registry_.AddCounter(kSpecs[1], {{"grpc_type", kind.type},
                                                       {"grpc_service", kind.service},
                                                       {"grpc_method", kind.method},
                                                       {"grpc_code", GrpcCodeName(code)}});
  }
  handled->second.Add();
  series.seconds.Observe(seconds);
  if (kind.ours() && --under_way_ == 0) idle_.notify_all();
}

bool CallMetrics::WaitUntilIdle(std::chrono::steady_clock::time_point deadline) {
  std::unique_lock lock(mu_);
  return idle_.wait_until(lock, deadline, [&] { return under_way_ == 0; });
}

std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> MakeCallInterceptorFactory(
    CallMetrics& metrics) {
  return std::make_unique<CallInterceptorFactory>(metrics);
}

}  // namespace maskkv::services
