// SPDX-License-Identifier: Apache-2.0
#include "core/arena/descriptor_message.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "absl/strings/str_format.h"
#include "core/base/error.h"

namespace maskkv::arena {
namespace {

static_assert(std::endian::native == std::endian::little, "messages are copied as they are");

constexpr std::uint32_t kMagic = 0x534b564d;  // "MVKS"
constexpr std::size_t kReasonBytes = 48;

// As on the wire.
struct Header {
  std::uint32_t magic;
  std::uint16_t version;
  std::uint16_t type;
  std::uint32_t number;
  std::uint32_t code;  // 0 in a request
};
static_assert(sizeof(Header) == 16);
struct RequestBody {
  std::uint64_t layout_hash, entry_id, nonce;
  std::byte lease[16];
  std::uint64_t zero;
};
struct ReplyBody {
  std::byte token[16];
  std::uint64_t epoch, layout_hash, bytes, zero;
};
static_assert(sizeof(RequestBody) == 48 && sizeof(ReplyBody) == 48);

template <typename Body>
MessageBytes Join(const Header& header, const Body& body) {
  MessageBytes bytes;
  std::memcpy(bytes.data(), &header, sizeof header);
  std::memcpy(bytes.data() + sizeof header, &body, sizeof body);
  return bytes;
}

absl::Status Bad(const std::string& what) {
  return MakeError(absl::StatusCode::kInvalidArgument, "BAD_MESSAGE", "message: expected " + what);
}

absl::StatusOr<Header> ReadHeader(std::span<const std::byte> bytes) {
  if (bytes.size() != kMessageBytes) {
    return Bad(absl::StrFormat("%d bytes, found %d", kMessageBytes, bytes.size()));
  }
  Header header;
  std::memcpy(&header, bytes.data(), sizeof header);
  if (header.magic != kMagic) return Bad("its magic, found another");
  if (header.version != kSocketVersion) {
    return Bad(absl::StrFormat("version %d, found %d", kSocketVersion, header.version));
  }
  if (header.type < 1 || header.type > 3) {
    return Bad(absl::StrFormat("type 1 to 3, found %d", header.type));
  }
  return header;
}

}  // namespace

MessageBytes Encode(const DescriptorRequest& request) {
  RequestBody body{request.layout_hash, request.entry_id, request.nonce, {}, 0};
  std::memcpy(body.lease, request.lease.bytes.data(), sizeof body.lease);
  return Join(
      Header{kMagic, kSocketVersion, static_cast<std::uint16_t>(request.type), request.number, 0},
      body);
}

MessageBytes Encode(const DescriptorReply& reply) {
  const Header header{kMagic, kSocketVersion, static_cast<std::uint16_t>(reply.type), reply.number,
                      reply.code};
  if (reply.code != 0) {
    std::array<char, kReasonBytes> reason{};
    std::copy_n(reply.reason.data(), std::min(reply.reason.size(), kReasonBytes), reason.data());
    return Join(header, reason);
  }
  ReplyBody body{{}, reply.epoch, reply.layout_hash, reply.bytes, 0};
  std::memcpy(body.token, reply.token.bytes.data(), sizeof body.token);
  return Join(header, body);
}

absl::StatusOr<DescriptorRequest> DecodeRequest(std::span<const std::byte> bytes) {
  const absl::StatusOr<Header> header = ReadHeader(bytes);
  if (!header.ok()) return header.status();
  RequestBody body;
  std::memcpy(&body, bytes.data() + sizeof(Header), sizeof body);
  DescriptorRequest request{static_cast<MessageType>(header->type),
                            header->number,
                            body.layout_hash,
                            body.entry_id,
                            body.nonce,
                            {}};
  std::memcpy(request.lease.bytes.data(), body.lease, sizeof body.lease);
  // What a type does not use is zero, so that it can mean something in a later version.
  DescriptorRequest used{request.type, request.number, 0, 0, 0, {}};
  if (request.type == MessageType::kHello) used.layout_hash = request.layout_hash;
  if (request.type == MessageType::kRead) used.lease = request.lease;
  if (request.type == MessageType::kWrite) {
    used.entry_id = request.entry_id;
    used.nonce = request.nonce;
  }
  if (header->code != 0 || body.zero != 0 || used != request) {
    return Bad("zeros in unused fields, found others");
  }
  return request;
}

absl::StatusOr<DescriptorReply> DecodeReply(std::span<const std::byte> bytes) {
  const absl::StatusOr<Header> header = ReadHeader(bytes);
  if (!header.ok()) return header.status();
  DescriptorReply reply;
  reply.type = static_cast<MessageType>(header->type);
  reply.number = header->number;
  reply.code = header->code;
  const std::byte* const body_at = bytes.data() + sizeof(Header);
  if (reply.code != 0) {
    const char* const text = reinterpret_cast<const char*>(body_at);
    reply.reason.assign(text, strnlen(text, kReasonBytes));
    const auto allowed = [](char c) {
      return (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
    };
    if (reply.code > 16 || reply.reason.empty() || reply.reason[0] < 'A' ||
        !std::ranges::all_of(reply.reason, allowed)) {
      return Bad("a status code and a reason, found others");
    }
    return reply;
  }
  ReplyBody body;
  std::memcpy(&body, body_at, sizeof body);
  std::memcpy(reply.token.bytes.data(), body.token, sizeof body.token);
  reply.epoch = body.epoch;
  reply.layout_hash = body.layout_hash;
  reply.bytes = body.bytes;
  if (body.zero != 0) return Bad("zeros in unused fields, found others");
  return reply;
}

}  // namespace maskkv::arena
