// SPDX-License-Identifier: Apache-2.0
//
// A peer's end of the descriptor socket: one connection, one session. When it is destroyed the
// daemon ends the session and takes leases and reservations back. Not thread safe.
#ifndef MASKKV_CORE_ARENA_DESCRIPTOR_CLIENT_H_
#define MASKKV_CORE_ARENA_DESCRIPTOR_CLIENT_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "core/arena/descriptor_message.h"
#include "core/arena/handle.h"
#include "core/base/unique_fd.h"

namespace maskkv::arena {

class DescriptorClient {
 public:
  // Connects and says HELLO. Errors: UNAVAILABLE (CACHE_DOWN: nobody listens, or no answer within
  // seconds), FAILED_PRECONDITION (LAYOUT_MISMATCH), RESOURCE_EXHAUSTED (TOO_MANY_SESSIONS).
  static absl::StatusOr<std::unique_ptr<DescriptorClient>> Connect(const std::string& path);

  const SessionToken& token() const { return token_; }
  std::uint64_t epoch() const { return epoch_; }

  struct Received {
    UniqueFd fd;
    std::uint64_t bytes = 0;
  };
  // Errors: of CacheManager; UNAVAILABLE (CACHE_DOWN): the connection and the session are over.
  absl::StatusOr<Received> WriteDescriptor(std::uint64_t entry_id, std::uint64_t nonce);
  absl::StatusOr<Received> ReadDescriptor(const LeaseId& lease);

  // Whether the daemon still holds the other end; does not wait.
  bool Alive() const;

 private:
  explicit DescriptorClient(UniqueFd socket) : socket_(std::move(socket)) {}
  absl::StatusOr<DescriptorReply> Ask(DescriptorRequest request, UniqueFd* descriptor);

  UniqueFd socket_;
  SessionToken token_;
  std::uint64_t epoch_ = 0;
  std::uint32_t next_number_ = 1;
};

}  // namespace maskkv::arena

#endif  // MASKKV_CORE_ARENA_DESCRIPTOR_CLIENT_H_
