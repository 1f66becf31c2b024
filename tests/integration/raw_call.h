// SPDX-License-Identifier: Apache-2.0
//
// A gRPC call without generated code: bytes in, bytes out, any method. What a stranger's generic
// client does.
#ifndef MASKKV_TESTS_INTEGRATION_RAW_CALL_H_
#define MASKKV_TESTS_INTEGRATION_RAW_CALL_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace grpc {
class Channel;
}

namespace maskkv::testing {

struct RawAnswer {
  absl::Status status;
  std::vector<std::string> messages;
};

// Sends one message and reads to the end of the stream, within 30 s.
RawAnswer RawCall(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                  const std::string& request);

// "SERVING", "NOT_SERVING", or the code of the error.
std::string HealthOf(const std::shared_ptr<grpc::Channel>& channel, const std::string& service);

// Names of services that the reflection service lists, sorted.
std::vector<std::string> ListServices(const std::shared_ptr<grpc::Channel>& channel);

}  // namespace maskkv::testing

#endif  // MASKKV_TESTS_INTEGRATION_RAW_CALL_H_
