// SPDX-License-Identifier: Apache-2.0
#include "services/common/listen_address.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <cstring>
#include <string>
#include <string_view>

#include "absl/strings/str_format.h"
#include "core/base/error.h"
#include "core/base/status_macros.h"
#include "core/base/unique_fd.h"

namespace maskkv::services {
namespace {

constexpr char kWhat[] = "listen address";
constexpr std::string_view kUnix = "unix:";

bool SomebodyListens(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size());
  const UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  return ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
}

}  // namespace

std::string ListenAddress::ToString() const {
  return tcp ? tcp->numeric() : std::string(kUnix) + unix_path;
}

absl::StatusOr<ListenAddress> ParseListenAddress(const std::string& text, bool allow_plaintext) {
  ListenAddress address;
  if (std::string_view(text).starts_with(kUnix)) {
    address.unix_path = text.substr(kUnix.size());
    while (address.unix_path.starts_with("//")) address.unix_path.erase(0, 1);
    const bool nul = address.unix_path.find('\0') != std::string::npos;
    if (address.unix_path.empty() || nul ||
        address.unix_path.size() >= sizeof(sockaddr_un::sun_path)) {
      return MakeError(absl::StatusCode::kInvalidArgument, "BAD_ADDRESS",
                       absl::StrFormat("%s: expected unix: and a path of 1 to %d bytes, found "
                                       "\"%s\"",
                                       kWhat, sizeof(sockaddr_un::sun_path) - 1, text));
    }
    return address;
  }
  MASKKV_ASSIGN_OR_RETURN(address.tcp, ParseHostPort(kWhat, text));
  if (!allow_plaintext && !address.tcp->is_loopback()) {
    return MakeError(
        absl::StatusCode::kInvalidArgument, "PLAINTEXT_REFUSED",
        absl::StrFormat("%s: expected a loopback address or unix:PATH, because nothing "
                        "is encrypted (--allow-plaintext lifts this), found \"%s\"",
                        kWhat, text));
  }
  return address;
}

absl::Status CheckFree(const ListenAddress& address) {
  if (address.tcp) return CheckBindable(kWhat, *address.tcp);
  if (!SomebodyListens(address.unix_path)) return absl::OkStatus();
  return MakeError(absl::StatusCode::kUnavailable, "ADDRESS_IN_USE",
                   absl::StrFormat("%s %s: expected to be free, found another server's socket",
                                   kWhat, address.ToString()));
}

}  // namespace maskkv::services
