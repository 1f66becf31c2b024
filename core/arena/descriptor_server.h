// SPDX-License-Identifier: Apache-2.0
//
// The daemon's end of the descriptor socket: opens a session for each connection that says HELLO,
// hands out descriptors, and ends the session when the connection ends, which is how the daemon
// learns that a peer died. One thread of its own; nothing that a peer does makes it wait or grow:
// connections are bounded in all and by uid, packets are of one size, who does not read or says
// something else than the protocol is disconnected, descriptors that peers send are closed.
//
// Movable handle; destroying it ends all sessions. Thread safe.
#ifndef MASKKV_CORE_ARENA_DESCRIPTOR_SERVER_H_
#define MASKKV_CORE_ARENA_DESCRIPTOR_SERVER_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "core/arena/cache_manager.h"

namespace maskkv::arena {

struct DescriptorServerOptions {
  std::string path;  // of the socket file; a socket that nobody listens on is replaced
  // In all, and of one uid; those who are no services leave that many of all to services.
  std::size_t max_connections = 256;
  std::size_t max_connections_of_uid = 64;
  std::chrono::milliseconds hello_within{5000};
  // Who a peer of this uid is. By default the daemon's own uid is a service, others are tenants
  // "uid-N".
  std::function<SessionIdentity(std::uint32_t uid)> identify;
};

SessionIdentity DefaultIdentity(std::uint32_t uid);

class DescriptorServer {
 public:
  // manager outlives the server; its leases are expired by the server's thread once a second.
  // Errors: INVALID_ARGUMENT (BAD_ADDRESS: too long, or no place for a socket), UNAVAILABLE
  // (ADDRESS_IN_USE: somebody listens there, or it is another file).
  static absl::StatusOr<DescriptorServer> Start(const DescriptorServerOptions& options,
                                                CacheManager& manager);
  DescriptorServer(DescriptorServer&&) noexcept;
  DescriptorServer& operator=(DescriptorServer&&) noexcept;
  ~DescriptorServer();

  // Connections that are open now.
  std::size_t connections() const;

 private:
  struct Impl;
  explicit DescriptorServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace maskkv::arena

#endif  // MASKKV_CORE_ARENA_DESCRIPTOR_SERVER_H_
