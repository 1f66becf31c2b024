// SPDX-License-Identifier: Apache-2.0
//
// One address that a server listens on: "HOST:PORT", or "unix:PATH" for a socket in the file
// system.
#ifndef MASKKV_SERVICES_COMMON_LISTEN_ADDRESS_H_
#define MASKKV_SERVICES_COMMON_LISTEN_ADDRESS_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/host_port.h"

namespace maskkv::services {

struct ListenAddress {
  std::optional<HostPort> tcp;  // or
  std::string unix_path;

  // As gRPC takes it.
  std::string ToString() const;
};

// Errors: INVALID_ARGUMENT (BAD_ADDRESS): malformed, a path that is empty or longer than a socket's
// address; (PLAINTEXT_REFUSED): a TCP address that other machines reach, unless allow_plaintext.
absl::StatusOr<ListenAddress> ParseListenAddress(const std::string& text, bool allow_plaintext);

// Whether a server could listen there. A socket file that nobody listens on is no hindrance: gRPC
// replaces it. It would replace a live one too, hence this check.
// Errors: UNAVAILABLE (ADDRESS_IN_USE).
absl::Status CheckFree(const ListenAddress& address);

}  // namespace maskkv::services

#endif  // MASKKV_SERVICES_COMMON_LISTEN_ADDRESS_H_
