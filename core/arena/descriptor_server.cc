// SPDX-License-Identifier: Apache-2.0
#include "core/arena/descriptor_server.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "core/arena/descriptor_socket.h"
#include "core/arena/layout.h"
#include "core/base/check.h"
#include "core/base/error.h"
#include "core/base/status_macros.h"

namespace maskkv::arena {
namespace {

using Clock = std::chrono::steady_clock;

// Housekeeping: late HELLOs, expired leases.
constexpr int kTickMs = 1000;
// Connections taken in one turn, so that a flood of them does not hold up who is there already.
constexpr int kAcceptedAtOnce = 16;

// Whether a daemon that died left the file: it is a socket, and nobody listens on it.
bool IsAbandoned(const std::string& path, const sockaddr_un& address) {
  struct stat file {};
  if (lstat(path.c_str(), &file) != 0 || !S_ISSOCK(file.st_mode)) return false;
  // Does not wait for a listener whose queue is full.
  const UniqueFd probe(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  return probe.valid() &&
         connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 &&
         errno == ECONNREFUSED;
}

absl::StatusOr<UniqueFd> Listen(const std::string& path) {
  MASKKV_ASSIGN_OR_RETURN(const sockaddr_un address, SocketAddress(path));
  const auto* const generic = reinterpret_cast<const sockaddr*>(&address);
  UniqueFd listener(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const absl::Status taken =
      MakeError(absl::StatusCode::kUnavailable, "ADDRESS_IN_USE",
                absl::StrFormat("%s: expected to listen there, found it taken", path));
  if (!listener.valid()) return taken;
  if (bind(listener.get(), generic, sizeof address) != 0) {
    if (errno != EADDRINUSE) {
      return MakeError(absl::StatusCode::kInvalidArgument, "BAD_ADDRESS",
                       absl::StrFormat("%s: expected a path where a socket can be made, found: %s",
                                       path, std::strerror(errno)));
    }
    if (!IsAbandoned(path, address)) return taken;
    if (unlink(path.c_str()) != 0 || bind(listener.get(), generic, sizeof address) != 0) {
      return taken;
    }
  }
  if (chmod(path.c_str(), 0660) != 0 || listen(listener.get(), 64) != 0) return taken;
  return listener;
}

// The same memory through a descriptor that was opened for reading only; what is sealed cannot be
// written through any. The original where /proc is not there.
UniqueFd ReadOnly(UniqueFd fd) {
  UniqueFd read_only(
      open(absl::StrFormat("/proc/self/fd/%d", fd.get()).c_str(), O_RDONLY | O_CLOEXEC));
  return read_only.valid() ? std::move(read_only) : std::move(fd);
}

}  // namespace

SessionIdentity DefaultIdentity(std::uint32_t uid) {
  if (uid == geteuid()) return {uid, "default", true};
  return {uid, absl::StrFormat("uid-%d", uid), false};
}

struct DescriptorServer::Impl {
  struct Connection {
    UniqueFd socket;
    SessionIdentity identity;
    Clock::time_point accepted;
    std::optional<SessionToken> session;
  };

  Impl(DescriptorServerOptions given, CacheManager& m) : options(std::move(given)), manager(m) {
    if (!options.identify) options.identify = DefaultIdentity;
  }

  ~Impl() {
    if (thread.joinable()) {
      const std::uint64_t one = 1;
      MASKKV_CHECK(write(stop.get(), &one, sizeof one) == sizeof one, "an event can be told");
      thread.join();
      unlink(options.path.c_str());
    }
    for (Connection& connection : connections) End(connection);
  }

  void Run() {
    Clock::time_point tick = Clock::now();
    std::vector<pollfd> polled;
    for (;;) {
      // Out of descriptors: who waits to be accepted waits for the next tick, instead of keeping
      // this thread busy.
      const int accepts = out_of_descriptors ? -1 : listener.get();
      out_of_descriptors = false;
      polled.assign({{stop.get(), POLLIN, 0}, {accepts, POLLIN, 0}});
      for (const Connection& connection : connections) {
        polled.push_back({connection.socket.get(), POLLIN, 0});
      }
      poll(polled.data(), polled.size(), kTickMs);
      if (polled[0].revents != 0) return;
      for (std::size_t i = 2; i < polled.size(); ++i) {
        Connection& connection = connections[i - 2];
        if (polled[i].revents != 0 && !Serve(connection)) End(connection);
      }
      const Clock::time_point now = Clock::now();
      for (Connection& connection : connections) {
        const bool late = now - connection.accepted > options.hello_within;
        if (!connection.session && late) End(connection);
      }
      std::erase_if(connections, [](const Connection& c) { return !c.socket.valid(); });
      if (polled[1].revents != 0) Accept();
      open_connections.store(connections.size(), std::memory_order_relaxed);
      if (now - tick >= std::chrono::milliseconds(kTickMs)) {
        manager.ExpireLeases();
        tick = now;
      }
    }
  }

  void Accept() {
    for (int i = 0; i < kAcceptedAtOnce; ++i) {
      UniqueFd peer(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (!peer.valid()) {
        out_of_descriptors = errno == EMFILE || errno == ENFILE || errno == ENOMEM;
        return;
      }
      ucred credentials{};
      socklen_t size = sizeof credentials;
      if (getsockopt(peer.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) continue;
      SessionIdentity identity = options.identify(credentials.uid);
      identity.uid = credentials.uid;
      if (!HasPlace(identity)) continue;  // closed
      connections.push_back({std::move(peer), std::move(identity), Clock::now(), {}});
    }
  }

  // Services always find the places of one uid free of others.
  bool HasPlace(const SessionIdentity& identity) const {
    std::size_t of_uid = 0, of_others = 0;
    for (const Connection& connection : connections) {
      of_uid += connection.identity.uid == identity.uid;
      of_others += !connection.identity.is_service;
    }
    return connections.size() < options.max_connections &&
           of_uid < options.max_connections_of_uid &&
           (identity.is_service ||
            of_others + options.max_connections_of_uid < options.max_connections);
  }

  void End(Connection& connection) {
    connection.socket.Reset();
    if (connection.session) manager.CloseSession(*connection.session);
    connection.session.reset();
  }

  // One packet. False: the connection is to end.
  bool Serve(Connection& connection) {
    const absl::StatusOr<std::optional<Packet>> packet = ReceivePacket(connection.socket.get());
    if (!packet.ok()) return false;
    if (!packet->has_value()) return true;
    const Packet& received = **packet;
    if (received.cut || received.several || received.descriptor.valid()) return false;
    const absl::StatusOr<DescriptorRequest> request =
        DecodeRequest(std::span(received.bytes).first(received.size));
    if (!request.ok()) return false;
    DescriptorReply reply;
    reply.type = request->type;
    reply.number = request->number;
    UniqueFd descriptor;
    const absl::Status status = Answer(connection, *request, reply, descriptor);
    if (!status.ok()) {
      reply = {request->type,
               request->number,
               static_cast<std::uint32_t>(status.code()),
               ErrorReason(status),
               {},
               0,
               0,
               0};
    }
    // Non-blocking: a peer that lets replies pile up is gone.
    const bool sent = SendPacket(connection.socket.get(), Encode(reply), descriptor.get()).ok();
    return sent && (status.ok() || request->type != MessageType::kHello);
  }

  absl::Status Answer(Connection& connection, const DescriptorRequest& request,
                      DescriptorReply& reply, UniqueFd& descriptor) {
    if (request.type == MessageType::kHello) return Hello(connection, request, reply);
    if (!connection.session) {
      return MakeError(absl::StatusCode::kUnauthenticated, "NO_SESSION",
                       "message: expected HELLO first, found another");
    }
    absl::StatusOr<CacheManager::Descriptor> shared =
        request.type == MessageType::kWrite
            ? manager.WriteDescriptor(*connection.session, request.entry_id, request.nonce)
            : manager.ReadDescriptor(*connection.session, request.lease);
    MASKKV_RETURN_IF_ERROR(shared.status());
    reply.bytes = shared->bytes;
    descriptor = request.type == MessageType::kRead ? ReadOnly(std::move(shared->fd))
                                                    : std::move(shared->fd);
    return absl::OkStatus();
  }

  absl::Status Hello(Connection& connection, const DescriptorRequest& request,
                     DescriptorReply& reply) {
    if (request.layout_hash != LayoutHash()) {
      return MakeError(absl::StatusCode::kFailedPrecondition, "LAYOUT_MISMATCH",
                       "layout_hash: expected the daemon's, found another");
    }
    if (connection.session) {
      return MakeError(absl::StatusCode::kFailedPrecondition, "SESSION_OPEN",
                       "message: expected one HELLO, found a second");
    }
    MASKKV_ASSIGN_OR_RETURN(connection.session, manager.OpenSession(connection.identity));
    reply.token = *connection.session;
    reply.epoch = manager.epoch();
    reply.layout_hash = LayoutHash();
    return absl::OkStatus();
  }

  DescriptorServerOptions options;
  CacheManager& manager;
  UniqueFd listener, stop;
  std::vector<Connection> connections;           // of the thread
  bool out_of_descriptors = false;               // of the thread
  std::atomic<std::size_t> open_connections{0};  // a number to look at; orders nothing
  std::thread thread;
};

absl::StatusOr<DescriptorServer> DescriptorServer::Start(const DescriptorServerOptions& options,
                                                         CacheManager& manager) {
  auto impl = std::make_unique<Impl>(options, manager);
  MASKKV_ASSIGN_OR_RETURN(impl->listener, Listen(options.path));
  impl->stop.Reset(eventfd(0, EFD_CLOEXEC));
  MASKKV_CHECK(impl->stop.valid(), "the system gives an event");
  impl->thread = std::thread([raw = impl.get()] { raw->Run(); });
  return DescriptorServer(std::move(impl));
}

DescriptorServer::DescriptorServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
DescriptorServer::DescriptorServer(DescriptorServer&&) noexcept = default;
DescriptorServer& DescriptorServer::operator=(DescriptorServer&&) noexcept = default;
DescriptorServer::~DescriptorServer() = default;

std::size_t DescriptorServer::connections() const {
  return impl_->open_connections.load(std::memory_order_relaxed);
}

}  // namespace maskkv::arena
