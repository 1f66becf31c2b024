// SPDX-License-Identifier: Apache-2.0
//
// "HOST:PORT" as flags give it: "127.0.0.1:0", "[::1]:9090", "localhost:80". Pure functions but
// CheckBindable.
#ifndef MASKKV_CORE_BASE_HOST_PORT_H_
#define MASKKV_CORE_BASE_HOST_PORT_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace maskkv {

struct HostPort {
  std::string host;  // without brackets
  int port = 0;      // 0 to 65535

  // "HOST:PORT", an IPv6 address in brackets.
  std::string ToString() const;
  // The same with "localhost" replaced by 127.0.0.1.
  std::string numeric() const;
  // An address of 127.0.0.0/8, ::1 or "localhost": what no other machine reaches.
  bool is_loopback() const;
};

// `what` names the value in messages.
// Errors: INVALID_ARGUMENT (BAD_ADDRESS): no port, a port out of range, a host that is empty or
// neither a numeric address nor a host name of [A-Za-z0-9.-].
absl::StatusOr<HostPort> ParseHostPort(std::string_view what, std::string_view text);

// Whether a server could listen there now: libraries that listen do not say why they could not.
// Errors: UNAVAILABLE (ADDRESS_IN_USE) with the system's reason. OK for a host that is a name.
absl::Status CheckBindable(std::string_view what, const HostPort& at);

}  // namespace maskkv

#endif  // MASKKV_CORE_BASE_HOST_PORT_H_
