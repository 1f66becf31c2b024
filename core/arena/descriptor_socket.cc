// SPDX-License-Identifier: Apache-2.0
#include "core/arena/descriptor_socket.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_format.h"
#include "core/base/error.h"

namespace maskkv::arena {
namespace {

// Room for more descriptors than anybody should send: what does not fit the kernel closes itself.
constexpr std::size_t kMaxDescriptors = 16;

absl::Status Gone(const char* what) {
  return MakeError(absl::StatusCode::kUnavailable, "CACHE_DOWN",
                   absl::StrFormat("descriptor socket: expected a peer, found %s", what));
}

}  // namespace

absl::StatusOr<sockaddr_un> SocketAddress(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return MakeError(absl::StatusCode::kInvalidArgument, "BAD_ADDRESS",
                     absl::StrFormat("socket: expected a path of 1 to %d bytes, found %d",
                                     sizeof address.sun_path - 1, path.size()));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

absl::Status SendPacket(int socket, const MessageBytes& message, int descriptor) {
  iovec part{const_cast<std::byte*>(message.data()), message.size()};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  alignas(cmsghdr) std::byte control[CMSG_SPACE(sizeof(int))] = {};
  if (descriptor >= 0) {
    header.msg_control = control;
    header.msg_controllen = sizeof control;
    cmsghdr* const rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(rights), &descriptor, sizeof descriptor);
  }
  for (;;) {
    const ssize_t sent = sendmsg(socket, &header, MSG_NOSIGNAL);
    if (sent == static_cast<ssize_t>(message.size())) return absl::OkStatus();
    if (sent < 0 && errno == EINTR) continue;
    return Gone("none that reads");
  }
}

absl::StatusOr<std::optional<Packet>> ReceivePacket(int socket) {
  Packet packet;
  iovec part{packet.bytes.data(), packet.bytes.size()};
  alignas(cmsghdr) std::byte control[CMSG_SPACE(kMaxDescriptors * sizeof(int))];
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  ssize_t got = 0;
  do {
    got = recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got < 0) {
    if (errno == EAGAIN || errno == EWOULDBLOCK) return std::optional<Packet>();
    return Gone("an error");
  }
  int count = 0;
  for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = CMSG_NXTHDR(&header, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t descriptors = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < descriptors; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof fd);
      packet.descriptor.Reset(fd);  // closes the one before
      ++count;
    }
  }
  if (got == 0 && count == 0) return Gone("it closed");
  packet.size = static_cast<std::size_t>(got);
  packet.cut = (header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0;
  packet.several = count > 1;
  if (packet.several) packet.descriptor.Reset();
  return std::optional<Packet>(std::move(packet));
}

}  // namespace maskkv::arena
