// SPDX-License-Identifier: Apache-2.0
#include "core/arena/mapped_entry.h"

#include <sys/stat.h>

#include <utility>

#include "core/base/check.h"
#include "core/base/sha256.h"
#include "core/base/status_macros.h"

namespace maskkv::arena {

absl::StatusOr<std::shared_ptr<const MappedEntry>> MappedEntry::Map(
    UniqueFd descriptor, const EntryExpectation& expectation, std::function<void()> on_unmapped) {
  // Sealed first: the size that is read afterwards cannot change any more.
  MASKKV_RETURN_IF_ERROR(CheckSealed(descriptor.get()));
  struct stat status {};
  if (::fstat(descriptor.get(), &status) != 0 || status.st_size < 0) {
    return absl::InvalidArgumentError("entry: expected a descriptor of memory");
  }
  MASKKV_ASSIGN_OR_RETURN(
      Mapping mapping,
      MapDescriptor(descriptor.get(), static_cast<std::uint64_t>(status.st_size), Access::kRead));
  MASKKV_ASSIGN_OR_RETURN(std::shared_ptr<MappedEntry> entry, Read(mapping.memory(), expectation));
  entry->mapping_ = std::move(mapping);
  entry->on_unmapped_ = std::move(on_unmapped);
  return entry;
}

absl::StatusOr<std::shared_ptr<const MappedEntry>> MappedEntry::Over(
    std::span<const std::byte> memory, const EntryExpectation& expectation) {
  return Read(memory, expectation);
}

absl::StatusOr<std::shared_ptr<MappedEntry>> MappedEntry::Read(
    std::span<const std::byte> memory, const EntryExpectation& expectation) {
  MASKKV_ASSIGN_OR_RETURN(EntryIndex index, ValidateEntry(memory, expectation));
  std::shared_ptr<MappedEntry> entry(new MappedEntry());
  entry->memory_ = memory;
  entry->heads_.reserve(index.heads.size());
  for (const HeadRecord& head : index.heads) {
    const float* scales = nullptr;
    if (index.shape.HasScales()) {
      scales = reinterpret_cast<const float*>(memory.data() + head.scales);
    }
    entry->heads_.push_back({memory.data() + head.keys, memory.data() + head.values,
                             static_cast<std::int64_t>(head.pairs), scales,
                             scales == nullptr ? nullptr : scales + head.pairs});
  }
  entry->index_ = std::move(index);
  return entry;
}

MappedEntry::~MappedEntry() {
  mapping_.Reset();
  if (on_unmapped_) on_unmapped_();
}

std::span<const kernels::CachedHead> MappedEntry::Layer(std::int64_t layer) const {
  MASKKV_CHECK(layer >= 0 && layer < shape().layers, "layer of an entry");
  return std::span(heads_).subspan(static_cast<std::size_t>(layer * shape().kv_heads),
                                   static_cast<std::size_t>(shape().kv_heads));
}

std::span<const std::int32_t> MappedEntry::Positions(std::int64_t layer, std::int64_t head) const {
  MASKKV_CHECK(layer >= 0 && layer < shape().layers && head >= 0 && head < shape().kv_heads,
               "head of an entry");
  const HeadRecord& record =
      index_.heads[static_cast<std::size_t>(layer * shape().kv_heads + head)];
  return {reinterpret_cast<const std::int32_t*>(memory_.data() + record.positions), record.pairs};
}

Digest MappedEntry::ContentDigest() const {
  Sha256 hash;
  hash.Update(memory_.subspan(kContentFrom, index_.total_bytes - kContentFrom));
  return hash.Finish();
}

}  // namespace maskkv::arena
