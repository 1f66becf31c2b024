// SPDX-License-Identifier: Apache-2.0
//
// Writes one entry in the shared-memory format (layout.h, docs/shm_format.md) into memory that
// somebody else owns: a KvSink over a reservation's mapping, or over any buffer. The kept pairs go
// straight to their place; nothing is copied afterwards. Not thread safe, except that several threads
// may fill the extents of the layer allocated last.
//
// Order of calls: the engine calls Begin, AllocateLayer for every layer, Finish; then the owner calls
// Complete and unmaps the memory before it seals the entry.
#ifndef MASKKV_CORE_ARENA_ENTRY_WRITER_H_
#define MASKKV_CORE_ARENA_ENTRY_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/arena/handle.h"
#include "core/engine/kv.h"

namespace maskkv::arena {

// What an entry says of itself besides its pairs.
struct EntryMetadata {
  std::uint64_t epoch = 0;     // of the reservation's handle
  std::uint64_t entry_id = 0;  // of the reservation's handle
  Digest model_fingerprint{};
  Digest prompt_digest{};    // TokenDigest of the whole prompt
  Digest document_digest{};  // TokenDigest of its first document_tokens ids
  std::int64_t prompt_tokens = 0;
  std::int64_t document_tokens = 0;  // 0 to prompt_tokens
  std::int64_t masks = 0;            // that voted
  std::uint64_t plan_generation = 0;
  std::int64_t budget = 0;  // B; 0 under a coverage target or when everything was kept
  double kept_mass = 1;     // 0 to 1

  bool operator==(const EntryMetadata&) const = default;
};

// SHA-256 over the ids as little-endian 32-bit integers.
Digest TokenDigest(std::span<const std::int32_t> ids);

// Bytes that an entry of `shape` with at most `max_pairs` pairs over all layers and heads can take,
// header, tables and padding included.
// Errors: RESOURCE_EXHAUSTED (ENTRY_TOO_LARGE) if that is no 63-bit number; INVALID_ARGUMENT for a
// shape without layers, heads or width.
absl::StatusOr<std::uint64_t> MaxEntryBytes(const engine::EntryShape& shape, std::int64_t max_pairs);

class EntryWriter final : public engine::KvSink {
 public:
  // memory: at least 64-byte aligned, zero filled. metadata.kept_mass is given to Complete.
  EntryWriter(std::span<std::byte> memory, const EntryMetadata& metadata)
      : memory_(memory), metadata_(metadata) {}

  engine::MemoryKind memory() const override { return engine::MemoryKind::kHost; }

  // Errors: RESOURCE_EXHAUSTED (ENTRY_TOO_LARGE) if the memory is smaller than MaxEntryBytes says;
  // FAILED_PRECONDITION if begun before.
  absl::Status Begin(const engine::EntryShape& shape, std::int64_t max_pairs) override;
  absl::StatusOr<std::span<const engine::HeadExtent>> AllocateLayer(
      std::int64_t layer, std::span<const std::int64_t> pairs_per_head) override;
  absl::Status Finish() override;

  // Writes checksums and the header. Returns the bytes used from the start, a multiple of 64.
  // Errors: FAILED_PRECONDITION before Finish; INVALID_ARGUMENT for a mass outside 0 to 1.
  absl::StatusOr<std::uint64_t> Complete(double kept_mass);

 private:
  const std::span<std::byte> memory_;
  EntryMetadata metadata_;
  engine::EntryShape shape_;
  std::int64_t max_pairs_ = 0;
  std::int64_t pairs_ = 0;
  std::int64_t layers_allocated_ = 0;
  std::uint64_t used_ = 0;
  bool begun_ = false;
  bool finished_ = false;
  std::vector<engine::HeadExtent> extents_;  // of the layer allocated last
};

}  // namespace maskkv::arena

#endif  // MASKKV_CORE_ARENA_ENTRY_WRITER_H_
