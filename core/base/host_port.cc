// SPDX-License-Identifier: Apache-2.0
#include "core/base/host_port.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "absl/strings/str_format.h"
#include "core/base/error.h"
#include "core/base/unique_fd.h"

namespace maskkv {
namespace {

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;
};

// nullopt if `host` is no numeric address.
std::optional<SocketAddress> ToSocketAddress(const std::string& host, int port) {
  SocketAddress address;
  auto* const v4 = reinterpret_cast<sockaddr_in*>(&address.storage);
  auto* const v6 = reinterpret_cast<sockaddr_in6*>(&address.storage);
  const auto network_port = htons(static_cast<std::uint16_t>(port));
  if (::inet_pton(AF_INET, host.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = network_port;
    address.size = sizeof(sockaddr_in);
    return address;
  }
  if (::inet_pton(AF_INET6, host.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = network_port;
    address.size = sizeof(sockaddr_in6);
    return address;
  }
  return std::nullopt;
}

bool IsHostName(std::string_view host) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '-';
  };
  return !host.empty() && host.size() <= 253 && std::all_of(host.begin(), host.end(), allowed);
}

}  // namespace

std::string HostPort::ToString() const {
  const bool v6 = host.find(':') != std::string::npos;
  return v6 ? absl::StrFormat("[%s]:%d", host, port) : absl::StrFormat("%s:%d", host, port);
}

std::string HostPort::numeric() const {
  return host == "localhost" ? HostPort{"127.0.0.1", port}.ToString() : ToString();
}

bool HostPort::is_loopback() const {
  in_addr v4{};
  return host == "localhost" || host == "::1" ||
         (::inet_pton(AF_INET, host.c_str(), &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127);
}

absl::StatusOr<HostPort> ParseHostPort(std::string_view what, std::string_view text) {
  const auto bad = [&] {
    return MakeError(absl::StatusCode::kInvalidArgument, "BAD_ADDRESS",
                     absl::StrFormat("%s: expected HOST:PORT with a port of 0 to 65535, found "
                                     "\"%s\"",
                                     what, text));
  };
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return bad();
  HostPort parsed;
  const std::string_view digits = text.substr(colon + 1);
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), parsed.port);
  if (error != std::errc() || end != digits.data() + digits.size()) return bad();
  if (parsed.port < 0 || parsed.port > 65535) return bad();
  std::string_view host = text.substr(0, colon);
  const bool brackets = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (brackets) host = host.substr(1, host.size() - 2);
  parsed.host = std::string(host);
  const std::optional<SocketAddress> numeric = ToSocketAddress(parsed.host, parsed.port);
  const bool v6 = numeric && numeric->storage.ss_family == AF_INET6;
  if (brackets != v6 || (!numeric && !IsHostName(host))) return bad();
  return parsed;
}

absl::Status CheckBindable(std::string_view what, const HostPort& at) {
  const std::optional<SocketAddress> address =
      ToSocketAddress(at.host == "localhost" ? "127.0.0.1" : at.host, at.port);
  if (!address) return absl::OkStatus();
  const UniqueFd socket(::socket(address->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  // As servers do: an address whose last connections are still closing is free.
  ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address->storage), address->size) ==
      0) {
    return absl::OkStatus();
  }
  return MakeError(absl::StatusCode::kUnavailable, "ADDRESS_IN_USE",
                   absl::StrFormat("%s %s: expected to be free, found: %s", what, at.ToString(),
                                   std::strerror(errno)));
}

}  // namespace maskkv
