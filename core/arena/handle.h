// SPDX-License-Identifier: Apache-2.0
//
// Names of things that the cache manager hands out. Values; whoever holds one has no right by it
// alone: the daemon looks up what it means for the caller's tenant.
#ifndef MASKKV_CORE_ARENA_HANDLE_H_
#define MASKKV_CORE_ARENA_HANDLE_H_

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <string>

namespace maskkv::arena {

// One entry in one life of one daemon. version counts its sealings, 0 while it is reserved; the
// nonce is random so that a handle cannot be guessed.
struct Handle {
  std::string owner;
  std::uint64_t epoch = 0;
  std::uint64_t entry_id = 0;
  std::uint32_t version = 0;
  std::uint64_t nonce = 0;

  bool operator==(const Handle&) const = default;
};

// 128 random bits each.
struct SessionToken {
  std::array<std::byte, 16> bytes{};
  auto operator<=>(const SessionToken&) const = default;
};
struct LeaseId {
  std::array<std::byte, 16> bytes{};
  auto operator<=>(const LeaseId&) const = default;
};

// SHA-256: keys of entries, digests of token sequences and payloads, model fingerprints.
using Digest = std::array<std::byte, 32>;

}  // namespace maskkv::arena

#endif  // MASKKV_CORE_ARENA_HANDLE_H_
