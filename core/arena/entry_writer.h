// SPDX-License-Identifier: Apache-2.0
//
// Writes one entry in the shared-memory format (layout.h, docs/shm_format.md) into memory that
// somebody else owns: a KvSink over a reservation's mapping, or over any buffer. The kept pairs go
// straight to their place; nothing is copied afterwards. A layer's checksum is taken when the next
// layer is allocated, while its bytes are still in the processor's caches. Not thread safe, except
// that several threads may fill the extents of the layer allocated last.
//
// Order of calls: the engine calls Begin, AllocateLayer for every layer, Finish; then the owner
// calls Complete and unmaps the memory before it seals the entry. Until Complete the memory holds
// no valid header, so an entry that was left half written is refused by every reader.
#ifndef MASKKV_CORE_ARENA_ENTRY_WRITER_H_
#define MASKKV_CORE_ARENA_ENTRY_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/arena/entry_metadata.h"
#include "core/arena/layout.h"
#include "core/engine/kv.h"

namespace maskkv::arena {

// Bytes that an entry of `shape` with at most `max_pairs` pairs over all layers and heads can take,
// header, tables and padding included.
// Errors: RESOURCE_EXHAUSTED (ENTRY_TOO_LARGE) if that is no 63-bit number; INVALID_ARGUMENT for a
// shape without layers, heads or width, with one of them over 2^31 - 1 or a rope_scale that is
// not finite or below 1, or for max_pairs < 0.
absl::StatusOr<std::uint64_t> MaxEntryBytes(const engine::EntryShape& shape,
                                            std::int64_t max_pairs);

class EntryWriter final : public engine::KvSink {
 public:
  // memory: at least 64-byte aligned; what it holds does not matter, but nothing before the bytes
  // that Complete returns keeps its content. metadata.kept_mass is given to Complete.
  EntryWriter(std::span<std::byte> memory, const EntryMetadata& metadata)
      : memory_(memory), metadata_(metadata) {}

  engine::MemoryKind memory() const override { return engine::MemoryKind::kHost; }

  // Errors: RESOURCE_EXHAUSTED (ENTRY_TOO_LARGE) if the memory is smaller than MaxEntryBytes says;
  // FAILED_PRECONDITION if begun before; INVALID_ARGUMENT as MaxEntryBytes, for memory that is not
  // aligned and for metadata out of range.
  absl::Status Begin(const engine::EntryShape& shape, std::int64_t max_pairs) override;
  // Errors: FAILED_PRECONDITION before Begin or after Finish; INVALID_ARGUMENT for a layer out of
  // order or another number of heads; RESOURCE_EXHAUSTED for more than max_pairs pairs in all.
  absl::StatusOr<std::span<const engine::HeadExtent>> AllocateLayer(
      std::int64_t layer, std::span<const std::int64_t> pairs_per_head) override;
  // Errors: FAILED_PRECONDITION while a layer is missing.
  absl::Status Finish() override;

  // Writes the checksum of the tables and the header. Returns the bytes used from the start,
  // a multiple of 64. May be called again with another mass.
  // Errors: FAILED_PRECONDITION before Finish; INVALID_ARGUMENT for a mass outside 0 to 1.
  absl::StatusOr<std::uint64_t> Complete(double kept_mass);

 private:
  std::byte* Place(std::uint64_t bytes);  // of an array; zeroes the padding before it
  void CloseLayer();                      // pads and checksums the layer allocated last
  template <typename Record>
  void WriteRecord(std::uint64_t offset, const Record& record);

  const std::span<std::byte> memory_;
  EntryMetadata metadata_;
  engine::EntryShape shape_;
  std::int64_t max_pairs_ = 0;
  std::int64_t pairs_ = 0;
  std::int64_t layers_allocated_ = 0;
  TableOffsets at_;
  std::uint64_t used_ = 0;          // end of the last array
  std::uint64_t layer_offset_ = 0;  // of the layer allocated last
  bool begun_ = false;
  bool finished_ = false;
  std::vector<engine::HeadExtent> extents_;  // of the layer allocated last
};

}  // namespace maskkv::arena

#endif  // MASKKV_CORE_ARENA_ENTRY_WRITER_H_
