// SPDX-License-Identifier: Apache-2.0
#include "core/arena/descriptor_client.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <optional>
#include <span>
#include <utility>

#include "core/arena/descriptor_socket.h"
#include "core/arena/layout.h"
#include "core/base/error.h"
#include "core/base/status_macros.h"

namespace maskkv::arena {
namespace {

constexpr timeval kTimeout{5, 0};

absl::Status Down(const char* what) {
  return WithRetryAfter(MakeError(absl::StatusCode::kUnavailable, "CACHE_DOWN",
                                  std::string("cache manager: expected an answer, found ") + what),
                        std::chrono::milliseconds(100));
}

}  // namespace

absl::StatusOr<std::unique_ptr<DescriptorClient>> DescriptorClient::Connect(
    const std::string& path) {
  MASKKV_ASSIGN_OR_RETURN(const sockaddr_un address, SocketAddress(path));
  UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return Down("no socket");
  setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &kTimeout, sizeof kTimeout);
  setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &kTimeout, sizeof kTimeout);
  if (connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return Down("nobody listening");
  }
  std::unique_ptr<DescriptorClient> client(new DescriptorClient(std::move(socket)));
  DescriptorRequest hello;
  hello.type = MessageType::kHello;
  hello.layout_hash = LayoutHash();
  MASKKV_ASSIGN_OR_RETURN(const DescriptorReply reply, client->Ask(hello, nullptr));
  if (reply.layout_hash != LayoutHash()) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "LAYOUT_MISMATCH",
                     "layout_hash: expected this build's, found another");
  }
  client->token_ = reply.token;
  client->epoch_ = reply.epoch;
  return client;
}

absl::StatusOr<DescriptorReply> DescriptorClient::Ask(DescriptorRequest request,
                                                      UniqueFd* descriptor) {
  request.number = next_number_++;
  if (!socket_.valid()) return Down("a closed connection");
  const auto lost = [this](const char* what) {
    socket_.Reset();  // answers that are under way would be taken for later ones
    return Down(what);
  };
  if (!SendPacket(socket_.get(), Encode(request)).ok()) return lost("a closed connection");
  absl::StatusOr<std::optional<Packet>> packet = ReceivePacket(socket_.get());
  if (!packet.ok()) return lost("a closed connection");
  if (!packet->has_value()) return lost("none in time");
  Packet& received = **packet;
  const absl::StatusOr<DescriptorReply> reply =
      DecodeReply(std::span(received.bytes).first(received.size));
  const bool wants = descriptor != nullptr && reply.ok() && reply->code == 0;
  if (!reply.ok() || received.cut || received.several || reply->number != request.number ||
      reply->type != request.type || received.descriptor.valid() != wants) {
    return lost("another protocol");
  }
  if (reply->code != 0) {
    return MakeError(static_cast<absl::StatusCode>(reply->code), reply->reason,
                     "cache manager: expected a descriptor, found a refusal");
  }
  if (wants) *descriptor = std::move(received.descriptor);
  return *reply;
}

absl::StatusOr<DescriptorClient::Received> DescriptorClient::WriteDescriptor(std::uint64_t entry_id,
                                                                             std::uint64_t nonce) {
  DescriptorRequest request;
  request.type = MessageType::kWrite;
  request.entry_id = entry_id;
  request.nonce = nonce;
  Received received;
  MASKKV_ASSIGN_OR_RETURN(const DescriptorReply reply, Ask(request, &received.fd));
  received.bytes = reply.bytes;
  return received;
}

absl::StatusOr<DescriptorClient::Received> DescriptorClient::ReadDescriptor(const LeaseId& lease) {
  DescriptorRequest request;
  request.type = MessageType::kRead;
  request.lease = lease;
  Received received;
  MASKKV_ASSIGN_OR_RETURN(const DescriptorReply reply, Ask(request, &received.fd));
  received.bytes = reply.bytes;
  return received;
}

bool DescriptorClient::Alive() const {
  if (!socket_.valid()) return false;
  pollfd polled{socket_.get(), POLLIN | POLLRDHUP, 0};
  // Between questions the daemon says nothing: anything to read is the end.
  return poll(&polled, 1, 0) == 0;
}

}  // namespace maskkv::arena
