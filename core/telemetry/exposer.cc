// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <netinet/in.h>
#include <prometheus/exposer.h>
#include <prometheus/registry.h>
#include <sys/socket.h>

#include <chrono>
#include <cstdint>
#include <exception>
#include <memory>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "core/base/error.h"
#include "core/base/host_port.h"
#include "core/base/status_macros.h"
#include "core/base/unique_fd.h"
#include "core/telemetry/metrics.h"

namespace maskkv::telemetry {
namespace {

constexpr char kWhat[] = "metrics address";

// Connects to the server and leaves, so that its accepting thread looks up.
void Knock(const HostPort& at) {
  sockaddr_in peer{};
  peer.sin_family = AF_INET;
  peer.sin_port = htons(static_cast<std::uint16_t>(at.port));
  const std::string host = at.host == "localhost" || at.host == "0.0.0.0" ? "127.0.0.1" : at.host;
  if (::inet_pton(AF_INET, host.c_str(), &peer.sin_addr) != 1) return;
  const UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&peer), sizeof(peer));
}

class HttpExposer final : public Exposer {
 public:
  HttpExposer(const HostPort& at, std::shared_ptr<prometheus::Registry> registry)
      : at_(at), registry_(std::move(registry)) {
    // Two threads, each of which a slow reader may hold for ten seconds.
    exposer_ = std::make_unique<prometheus::Exposer>(std::vector<std::string>{
        "listening_ports", at.numeric(), "num_threads", "2", "request_timeout_ms", "10000"});
    exposer_->RegisterCollectable(registry_);
    const std::vector<int> ports = exposer_->GetListeningPorts();
    if (!ports.empty()) at_.port = ports.front();
  }

  // The HTTP library looks at its stop flag every two seconds, or when somebody connects.
  ~HttpExposer() override {
    std::jthread knocking([this](const std::stop_token& stopped) {
      while (!stopped.stop_requested()) {
        Knock(at_);
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
      }
    });
    exposer_ = nullptr;
  }

  std::string address() const override { return at_.ToString(); }

 private:
  HostPort at_;
  const std::shared_ptr<prometheus::Registry> registry_;
  std::unique_ptr<prometheus::Exposer> exposer_;
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
