// SPDX-License-Identifier: Apache-2.0
//
// A sealed entry as the engine reads it: a KvView over a read-only mapping of somebody else's memory.
// Nothing in that memory is believed: magic, version, layout hash, identity, every offset and count are
// checked once, with arithmetic that cannot overflow, before an address is made of them; the memory
// must be sealed against writing, so that what was checked stays true.
//
// Ownership: owns the mapping (not the descriptor after Map) and unmaps when the last reference goes;
// `on_unmapped` then runs once, on that thread. Immutable, so any thread may read it.
#ifndef MASKKV_CORE_ARENA_MAPPED_ENTRY_H_
#define MASKKV_CORE_ARENA_MAPPED_ENTRY_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "core/arena/entry_writer.h"
#include "core/arena/handle.h"
#include "core/base/unique_fd.h"
#include "core/engine/kv.h"

namespace maskkv::arena {

// What a reader knows of an entry before it looks.
struct EntryExpectation {
  std::uint64_t epoch = 0;
  std::uint64_t entry_id = 0;
  std::uint64_t bytes = 0;  // as the daemon said
  Digest model_fingerprint{};
  bool verify_checksums = true;
};

class MappedEntry final : public engine::KvView {
 public:
  // Errors: FAILED_PRECONDITION (LAYOUT_MISMATCH: another version or layout hash; MODEL_MISMATCH;
  // NOT_SEALED), ABORTED (EPOCH_MOVED: another identity in the header), DATA_LOSS (BAD_HEADER,
  // CHECKSUM), RESOURCE_EXHAUSTED (the system gives no mapping).
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
  const engine::EntryShape& shape() const override { return shape_; }
  std::span<const kernels::CachedHead> Layer(std::int64_t layer) const override;
  std::span<const std::int32_t> Positions(std::int64_t layer, std::int64_t head) const override;
  // Payload: keys, values, positions.
  std::int64_t bytes() const override { return payload_bytes_; }

  const EntryMetadata& metadata() const { return metadata_; }
  std::int64_t pairs() const { return pairs_; }
  // SHA-256 over the bytes after the identity fields; computed at each call.
  Digest ContentDigest() const;

 private:
  MappedEntry() = default;

  std::span<const std::byte> memory_;
  bool owns_mapping_ = false;
  std::function<void()> on_unmapped_;
  engine::EntryShape shape_;
  EntryMetadata metadata_;
  std::int64_t pairs_ = 0;
  std::int64_t payload_bytes_ = 0;
  std::vector<kernels::CachedHead> heads_;           // (layers * kv_heads)
  std::vector<const std::int32_t*> head_positions_;  // (layers * kv_heads)
};

}  // namespace maskkv::arena

#endif  // MASKKV_CORE_ARENA_MAPPED_ENTRY_H_
