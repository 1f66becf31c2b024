// SPDX-License-Identifier: Apache-2.0
//
// What an entry says of itself besides its pairs. A value; where each field lies in an entry's
// header is in layout.h.
#ifndef MASKKV_CORE_ARENA_ENTRY_METADATA_H_
#define MASKKV_CORE_ARENA_ENTRY_METADATA_H_

#include <cstdint>
#include <span>

#include "core/arena/handle.h"

namespace maskkv::arena {

struct EntryMetadata {
  std::uint64_t epoch = 0;     // of the reservation's handle
  std::uint64_t entry_id = 0;  // of the reservation's handle
  Digest model_fingerprint{};
  Digest prompt_digest{};            // TokenDigest of the prompt before the answer
  Digest document_digest{};          // TokenDigest of its first document_tokens ids
  Digest suffix_digest{};            // TokenDigest of the prompt after the answer
  std::int64_t prompt_tokens = 0;    // before the answer
  std::int64_t document_tokens = 0;  // 0 to prompt_tokens
  std::int64_t masks = 0;            // positions of the answer
  std::int64_t suffix_tokens = 0;    // of the prompt, after the answer
  std::uint64_t plan_generation = 0;
  std::int64_t budget = 0;  // B; 0 under a coverage target or when everything was kept
  double kept_mass = 1;     // 0 to 1

  bool operator==(const EntryMetadata&) const = default;
};

// SHA-256 over the ids as little-endian 32-bit integers.
Digest TokenDigest(std::span<const std::int32_t> ids);

}  // namespace maskkv::arena

#endif  // MASKKV_CORE_ARENA_ENTRY_METADATA_H_
