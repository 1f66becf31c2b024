// SPDX-License-Identifier: Apache-2.0
//
// A sealed entry as the engine reads it: a KvView over a read-only mapping of somebody else's
// memory. Nothing in that memory is believed: ValidateEntry (entry_index.h) checks it once before
// an address is made of an offset, and the memory must be sealed against writing and shrinking, so
// that what was checked stays true and no read can fault.
//
// Ownership: owns the mapping (not the descriptor after Map) and unmaps when the last reference
// goes; `on_unmapped` then runs once, on that thread. Immutable, so any thread may read it.
#ifndef MASKKV_CORE_ARENA_MAPPED_ENTRY_H_
#define MASKKV_CORE_ARENA_MAPPED_ENTRY_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "core/arena/entry_index.h"
#include "core/arena/entry_metadata.h"
#include "core/arena/handle.h"
#include "core/arena/plane.h"
#include "core/base/unique_fd.h"
#include "core/engine/kv.h"

namespace maskkv::arena {

class MappedEntry final : public engine::KvView {
 public:
  // Errors: of ValidateEntry; FAILED_PRECONDITION (NOT_SEALED); INVALID_ARGUMENT (the descriptor is
  // no memory of that size), RESOURCE_EXHAUSTED (the system gives no mapping). on_unmapped does not
  // run after an error.
  static absl::StatusOr<std::shared_ptr<const MappedEntry>> Map(
      UniqueFd descriptor, const EntryExpectation& expectation,
      std::function<void()> on_unmapped = {});

  // The same over memory that stays valid and unchanged while the view lives (heap plane, tests).
  static absl::StatusOr<std::shared_ptr<const MappedEntry>> Over(
      std::span<const std::byte> memory, const EntryExpectation& expectation);

  ~MappedEntry() override;
  MappedEntry(const MappedEntry&) = delete;
  MappedEntry& operator=(const MappedEntry&) = delete;

  engine::MemoryKind memory() const override { return engine::MemoryKind::kHost; }
  const engine::EntryShape& shape() const override { return index_.shape; }
  std::span<const kernels::CachedHead> Layer(std::int64_t layer) const override;
  std::span<const std::int32_t> Positions(std::int64_t layer, std::int64_t head) const override;
  // Payload: keys, values, scales, positions.
  std::int64_t bytes() const override { return index_.payload_bytes; }

  const EntryMetadata& metadata() const { return index_.metadata; }
  std::int64_t pairs() const { return index_.pairs; }
  // SHA-256 over the entry's bytes from kContentFrom (layout.h) to its end: shape, counts, digests,
  // tables, payload, not who asked for it. Reads everything; computed at each call.
  Digest ContentDigest() const;

 private:
  MappedEntry() = default;

  static absl::StatusOr<std::shared_ptr<MappedEntry>> Read(std::span<const std::byte> memory,
                                                           const EntryExpectation& expectation);

  std::span<const std::byte> memory_;
  Mapping mapping_;  // of memory_, unless it is somebody else's
  std::function<void()> on_unmapped_;
  EntryIndex index_;
  std::vector<kernels::CachedHead> heads_;  // (layers * kv_heads)
};

}  // namespace maskkv::arena

#endif  // MASKKV_CORE_ARENA_MAPPED_ENTRY_H_
