// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as a message of the descriptor socket, both ways: an error of one line, or a message
// that is encoded to what it was decoded from.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "core/arena/descriptor_message.h"
#include "core/base/check.h"
#include "tests/fuzz/message_check.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace maskkv;
  const auto bytes = std::as_bytes(std::span(data, size));
  const auto request = arena::DecodeRequest(bytes);
  if (request.ok()) {
    const arena::MessageBytes again = arena::Encode(*request);
    MASKKV_CHECK(size == again.size() && std::memcmp(again.data(), data, size) == 0,
                 "a request has one encoding");
  } else {
    CheckMessage(request.status(), "message");
  }
  const auto reply = arena::DecodeReply(bytes);
  if (reply.ok()) {
    MASKKV_CHECK(reply->code <= 16 && reply->reason.size() <= 48, "a reply within its bounds");
    const auto again = arena::DecodeReply(arena::Encode(*reply));
    MASKKV_CHECK(again.ok() && *again == *reply, "a reply is decoded as it was encoded");
  } else {
    CheckMessage(reply.status(), "message");
  }
  return 0;
}
