// SPDX-License-Identifier: Apache-2.0
//
// One SOCK_SEQPACKET packet with or without a descriptor, sent and received. Functions without
// state; shared by both ends of the descriptor socket.
#ifndef MASKKV_CORE_ARENA_DESCRIPTOR_SOCKET_H_
#define MASKKV_CORE_ARENA_DESCRIPTOR_SOCKET_H_

#include <sys/un.h>

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/arena/descriptor_message.h"
#include "core/base/unique_fd.h"

namespace maskkv::arena {

// Errors: INVALID_ARGUMENT (BAD_ADDRESS) for a path that is empty or too long for a socket.
absl::StatusOr<sockaddr_un> SocketAddress(const std::string& path);

// Sends one message; never blocks longer than the socket's own time-out.
// Errors: UNAVAILABLE (the peer is gone or does not read).
absl::Status SendPacket(int socket, const MessageBytes& message, int descriptor = -1);

struct Packet {
  MessageBytes bytes;
  std::size_t size = 0;  // of the packet; more than kMessageBytes are cut and said so by `cut`
  bool cut = false;
  bool several = false;  // more than one descriptor came (all of them are closed)
  UniqueFd descriptor;
};

// Receives one packet. Every descriptor that came is owned by the result or closed.
// nullopt: nothing is there now (non-blocking). Errors: UNAVAILABLE (closed by the peer, time-out).
absl::StatusOr<std::optional<Packet>> ReceivePacket(int socket);

}  // namespace maskkv::arena

#endif  // MASKKV_CORE_ARENA_DESCRIPTOR_SOCKET_H_
