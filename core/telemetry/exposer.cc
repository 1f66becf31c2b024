// SPDX-License-Identifier: Apache-2.0
#include <prometheus/exposer.h>
#include <prometheus/registry.h>

#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "core/base/error.h"
#include "core/base/host_port.h"
#include "core/base/status_macros.h"
#include "core/telemetry/metrics.h"

namespace maskkv::telemetry {
namespace {

constexpr char kWhat[] = "metrics address";

class HttpExposer final : public Exposer {
 public:
  HttpExposer(const HostPort& at, std::shared_ptr<prometheus::Registry> registry)
      : registry_(std::move(registry)),
        // Two threads, each of which a slow reader may hold for ten seconds.
        exposer_(std::vector<std::string>{"listening_ports", at.numeric(), "num_threads", "2",
                                          "request_timeout_ms", "10000"}) {
    exposer_.RegisterCollectable(registry_);
    const std::vector<int> ports = exposer_.GetListeningPorts();
    address_ = HostPort{at.host, ports.empty() ? at.port : ports.front()}.ToString();
  }

  std::string address() const override { return address_; }

 private:
  const std::shared_ptr<prometheus::Registry> registry_;
  prometheus::Exposer exposer_;
  std::string address_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Exposer>> Exposer::Start(const std::string& address,
                                                        const Registry& registry) {
  MASKKV_ASSIGN_OR_RETURN(const HostPort at, ParseHostPort(kWhat, address));
  MASKKV_RETURN_IF_ERROR(CheckBindable(kWhat, at));
  try {
    return std::make_unique<HttpExposer>(at, registry.prometheus_registry());
  } catch (const std::exception& error) {
    return MakeError(
        absl::StatusCode::kUnavailable, "ADDRESS_IN_USE",
        absl::StrFormat("%s %s: expected to be free, found: %s", kWhat, address, error.what()));
  }
}

}  // namespace maskkv::telemetry
