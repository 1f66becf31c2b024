// SPDX-License-Identifier: Apache-2.0
//
// The one reader of entry bytes that believes nothing: the daemon runs it before an entry is sealed
// for others, every reader runs it before an address is made of an offset. Pure; arithmetic cannot
// overflow and no content of the memory can make it abort. What it returns stays true only as long
// as the memory does not change, which is why entries are sealed (plane.h).
#ifndef MASKKV_CORE_ARENA_ENTRY_INDEX_H_
#define MASKKV_CORE_ARENA_ENTRY_INDEX_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "core/arena/entry_metadata.h"
#include "core/arena/handle.h"
#include "core/arena/layout.h"
#include "core/engine/kv.h"

namespace maskkv::arena {

// What somebody knows of an entry before looking.
struct EntryExpectation {
  std::uint64_t epoch = 0;
  std::uint64_t entry_id = 0;
  // Of the memory, as the daemon said, with or without the rest of its last page; 0: whatever it
  // is.
  std::uint64_t bytes = 0;
  // None: any model (the daemon knows none).
  std::optional<Digest> model_fingerprint = std::nullopt;
  // Of the payload. Those of header and tables are always verified.
  bool verify_checksums = true;
};

// An entry's header and tables, checked. Offsets are from the start of the memory.
struct EntryIndex {
  EntryMetadata metadata;
  engine::EntryShape shape;
  std::int64_t pairs = 0;          // over all layers and heads
  std::int64_t payload_bytes = 0;  // keys, values, scales, positions, without padding
  std::uint64_t total_bytes = 0;
  std::vector<ExtentRecord> extents;
  std::vector<HeadRecord> heads;  // (layers * kv_heads), layer by layer
};

// memory: starts with the entry, 64-byte aligned, and ends less than a page after it.
//
// With verify_checksums a change of any byte of `memory` from a valid entry is refused. Without, a
// change of keys, values or padding passes; addresses stay within the memory, positions ascend and
// scales are finite numbers from 2^-126.
//
// Errors, one line "entry: FIELD: expected ..., found ...", that holds no payload:
// - FAILED_PRECONDITION LAYOUT_MISMATCH (another version or layout hash), MODEL_MISMATCH;
// - ABORTED EPOCH_MOVED (another epoch or entry id);
// - DATA_LOSS CHECKSUM (header, tables, an extent), BAD_HEADER (everything else);
// - INVALID_ARGUMENT for memory that is not 64-byte aligned.
absl::StatusOr<EntryIndex> ValidateEntry(std::span<const std::byte> memory,
                                         const EntryExpectation& expectation);

}  // namespace maskkv::arena

#endif  // MASKKV_CORE_ARENA_ENTRY_INDEX_H_
