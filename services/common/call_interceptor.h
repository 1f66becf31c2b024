// SPDX-License-Identifier: Apache-2.0
//
// What our server does around every call, whatever its service: counts it and times it, gives an
// error without details an ErrorInfo, and marks calls that come while the server drains. Thread
// safe.
#ifndef MASKKV_SERVICES_COMMON_CALL_INTERCEPTOR_H_
#define MASKKV_SERVICES_COMMON_CALL_INTERCEPTOR_H_

#include <atomic>
#include <chrono>
#include <compare>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>

#include "core/telemetry/metrics.h"

namespace grpc::experimental {
class ServerInterceptorFactoryInterface;
}

namespace maskkv::services {

// Counters and times of calls, and how many of our own are under way. Only methods that this binary
// has descriptors of make series, so there are few; whatever else a peer names counts as "unknown".
class CallMetrics {
 public:
  explicit CallMetrics(telemetry::Registry& registry) : registry_(registry) {}

  // type: "unary", "server_stream", ...; method: "/package.Service/Method".
  struct Kind {
    std::string type, service, method;
    auto operator<=>(const Kind&) const = default;
    // Of a maskkv service, not of health or reflection.
    bool ours() const { return service.starts_with("maskkv."); }
  };
  static Kind KindOf(std::string_view type, std::string_view full_name);

  void Started(const Kind& kind);
  // Once for every Started. code: a grpc::StatusCode.
  void Handled(const Kind& kind, int code, double seconds);

  void SetDraining() { draining_.store(true); }
  bool draining() const { return draining_.load(); }

  // Until no call to a maskkv service is under way, or `deadline`. Returns: whether none is.
  bool WaitUntilIdle(std::chrono::steady_clock::time_point deadline);

 private:
  struct Series {
    telemetry::Counter started;
    telemetry::Histogram seconds;
    std::map<int, telemetry::Counter> handled;  // by code
  };
  Series& Find(const Kind& kind);  // REQUIRES: mu_ is held

  telemetry::Registry& registry_;
  std::atomic<bool> draining_{false};
  std::mutex mu_;
  std::condition_variable idle_;
  std::map<Kind, Series> series_;  // guarded by mu_
  int under_way_ = 0;              // guarded by mu_
};

// "CANCELLED" for 1 and so on, as docs/errors.md writes them.
std::string GrpcCodeName(int code);

// The specs of grpc_server_*.
std::span<const telemetry::MetricSpec> CallMetricSpecs();

// One interceptor a call. `metrics` outlives the server.
std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> MakeCallInterceptorFactory(
    CallMetrics& metrics);

}  // namespace maskkv::services

#endif  // MASKKV_SERVICES_COMMON_CALL_INTERCEPTOR_H_
