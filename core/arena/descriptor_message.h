// SPDX-License-Identifier: Apache-2.0
//
// The messages of the descriptor socket (docs/shm_format.md): 64 bytes each, little endian, one a
// SOCK_SEQPACKET packet. Pure functions; whatever bytes arrive, decoding gives a message or an
// error.
#ifndef MASKKV_CORE_ARENA_DESCRIPTOR_MESSAGE_H_
#define MASKKV_CORE_ARENA_DESCRIPTOR_MESSAGE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "core/arena/handle.h"

namespace maskkv::arena {

inline constexpr std::size_t kMessageBytes = 64;
inline constexpr std::uint16_t kSocketVersion = 1;

using MessageBytes = std::array<std::byte, kMessageBytes>;

enum class MessageType : std::uint16_t {
  kHello = 1,  // opens the session of this connection
  kWrite = 2,  // a descriptor of the session's own reservation
  kRead = 3,   // a descriptor of an entry that the session leases
};

struct DescriptorRequest {
  MessageType type = MessageType::kHello;
  std::uint32_t number = 0;       // chosen by the peer, comes back in the reply
  std::uint64_t layout_hash = 0;  // kHello
  std::uint64_t entry_id = 0;     // kWrite
  std::uint64_t nonce = 0;        // kWrite
  LeaseId lease;                  // kRead

  bool operator==(const DescriptorRequest&) const = default;
};

struct DescriptorReply {
  MessageType type = MessageType::kHello;
  std::uint32_t number = 0;
  // An absl::StatusCode; with another than OK the reason and nothing else.
  std::uint32_t code = 0;
  std::string reason;             // up to 48 characters [A-Z0-9_]
  SessionToken token;             // kHello
  std::uint64_t epoch = 0;        // kHello
  std::uint64_t layout_hash = 0;  // kHello
  std::uint64_t bytes = 0;        // kWrite, kRead: of the memory behind the descriptor

  bool operator==(const DescriptorReply&) const = default;
};

MessageBytes Encode(const DescriptorRequest& request);
// REQUIRES: the reason is as described; longer ones are cut.
MessageBytes Encode(const DescriptorReply& reply);

// Errors: INVALID_ARGUMENT (BAD_MESSAGE): another size, magic, version or type, bytes that should
// be zero and are not.
absl::StatusOr<DescriptorRequest> DecodeRequest(std::span<const std::byte> bytes);
absl::StatusOr<DescriptorReply> DecodeReply(std::span<const std::byte> bytes);

}  // namespace maskkv::arena

#endif  // MASKKV_CORE_ARENA_DESCRIPTOR_MESSAGE_H_
