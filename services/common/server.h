// SPDX-License-Identifier: Apache-2.0
//
// One gRPC server: any number of maskkv services on any number of addresses, with health,
// reflection, call metrics and limits against peers that open too much. Synchronous handlers: one
// thread a call under way, at most max_threads (docs/adr says why). Movable handle; destroying it
// stops the server. Thread safe after Start.
#ifndef MASKKV_SERVICES_COMMON_SERVER_H_
#define MASKKV_SERVICES_COMMON_SERVER_H_

#include <chrono>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/telemetry/metrics.h"

namespace grpc {
class Service;
class Channel;
}  // namespace grpc

namespace maskkv::services {

struct ServerOptions {
  // "127.0.0.1:0", "[::1]:50051", "unix:/run/maskkv/prefill.sock". Plaintext: TCP addresses other
  // than loopback are refused unless allow_plaintext.
  std::vector<std::string> listen{"127.0.0.1:0"};
  bool allow_plaintext = false;
  // Calls under way at once; further ones are answered RESOURCE_EXHAUSTED (SERVER_BUSY). Health
  // checks need none of these threads.
  int max_threads = 512;
  int max_message_bytes = 64 << 20;
};

class Server {
 public:
  // services: registered, not owned; they outlive the server. All health names start as not serving
  // except "liveness".
  // Errors: INVALID_ARGUMENT (BAD_ADDRESS, PLAINTEXT_REFUSED), UNAVAILABLE (ADDRESS_IN_USE).
  static absl::StatusOr<Server> Start(const ServerOptions& options,
                                      std::span<grpc::Service* const> services,
                                      telemetry::Registry& registry);
  Server(Server&&) noexcept;
  Server& operator=(Server&&) noexcept;
  ~Server();

  // The port of the first TCP address; 0 if there is none.
  int port() const;
  // "HOST:PORT" of the first TCP address, else the first address.
  std::string address() const;

  // Health of "", "readiness" and every registered maskkv service; sets maskkv_ready.
  void SetReady(bool ready);

  // Readiness goes, liveness stays. New calls are refused by Call::Read: UNAVAILABLE (DRAINING).
  // Waits for calls under way until `deadline` has passed, cancels what is left, closes the
  // listeners and every connection. A handler of an endless stream has to be told to return before.
  // Idempotent.
  void Drain(std::chrono::milliseconds deadline);

 private:
  struct Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// A channel to a peer, as "HOST:PORT" or "unix:PATH": plaintext, a connection of its own, retried
// at least every second while the peer is away, pinged so that a dead peer is noticed. Messages of
// any size. Never fails; calls do.
std::shared_ptr<grpc::Channel> OpenChannel(const std::string& address);

}  // namespace maskkv::services

#endif  // MASKKV_SERVICES_COMMON_SERVER_H_
