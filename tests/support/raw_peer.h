// SPDX-License-Identifier: Apache-2.0
//
// A peer of the descriptor socket that sends whatever a test wants.
#ifndef MASKKV_TESTS_SUPPORT_RAW_PEER_H_
#define MASKKV_TESTS_SUPPORT_RAW_PEER_H_

#include <sys/socket.h>
#include <sys/time.h>

#include <cstddef>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/arena/descriptor_message.h"
#include "core/arena/descriptor_socket.h"
#include "core/arena/layout.h"
#include "core/base/check.h"
#include "core/base/unique_fd.h"

namespace maskkv::testing {

// Of this process.
inline std::ptrdiff_t OpenDescriptors() {
  const std::filesystem::directory_iterator files("/proc/self/fd");
  return std::distance(begin(files), end(files));
}

inline arena::MessageBytes HelloBytes() {
  arena::DescriptorRequest hello;
  hello.layout_hash = arena::LayoutHash();
  return arena::Encode(hello);
}

class RawPeer {
 public:
  explicit RawPeer(const std::string& path)
      : socket_(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)) {
    const auto address = arena::SocketAddress(path);
    MASKKV_CHECK(address.ok() && socket_.valid(), "a socket");
    const timeval timeout{60, 0};
    setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    setsockopt(socket_.get(), SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    connected_ = ::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&*address),
                           sizeof *address) == 0;
  }

  bool connected() const { return connected_; }

  // False: the other end is closed.
  bool Send(std::span<const std::byte> packet, const std::vector<int>& descriptors = {}) {
    iovec part{const_cast<std::byte*>(packet.data()), packet.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    const std::size_t bytes = descriptors.size() * sizeof(int);
    std::vector<std::byte> control(CMSG_SPACE(bytes));
    if (!descriptors.empty()) {
      message.msg_control = control.data();
      message.msg_controllen = control.size();
      cmsghdr* const rights = CMSG_FIRSTHDR(&message);
      rights->cmsg_level = SOL_SOCKET;
      rights->cmsg_type = SCM_RIGHTS;
      rights->cmsg_len = CMSG_LEN(bytes);
      std::memcpy(CMSG_DATA(rights), descriptors.data(), bytes);
    }
    return ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL) == static_cast<ssize_t>(packet.size());
  }

  // The next packet; none if the other end has closed the connection.
  std::optional<arena::MessageBytes> Receive() {
    arena::MessageBytes bytes;
    const ssize_t got = ::recv(socket_.get(), bytes.data(), bytes.size(), 0);
    if (got != static_cast<ssize_t>(bytes.size())) return std::nullopt;
    return bytes;
  }

  // Waits for the other end to close; packets that come before are dropped.
  bool Closed() {
    std::byte byte;
    ssize_t got = 0;
    while ((got = ::recv(socket_.get(), &byte, 1, 0)) > 0) {
    }
    return got == 0 || errno == ECONNRESET;
  }

  void Close() { socket_.Reset(); }

 private:
  UniqueFd socket_;
  bool connected_ = false;
};

}  // namespace maskkv::testing

#endif  // MASKKV_TESTS_SUPPORT_RAW_PEER_H_
