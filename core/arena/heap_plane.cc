// SPDX-License-Identifier: Apache-2.0
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/arena/layout.h"
#include "core/arena/plane.h"
#include "core/base/error.h"
#include "kernels/base/aligned_buffer.h"

namespace maskkv::arena {
namespace {

// What a region and its mappings share.
struct HeapMemory {
  kernels::AlignedBuffer<std::byte> buffer;
  int writers = 0;  // writable mappings
};

absl::Status Refused(std::string_view reason, std::string_view message) {
  return MakeError(absl::StatusCode::kFailedPrecondition, reason, message);
}

class HeapRegion final : public Region {
 public:
  explicit HeapRegion(std::uint64_t bytes)
      : memory_(std::make_shared<HeapMemory>()), bytes_(bytes) {
    memory_->buffer.Resize(static_cast<std::int64_t>(bytes));
    std::memset(memory_->buffer.data(), 0, bytes);
  }

  std::uint64_t bytes() const override { return bytes_; }
  bool sealed() const override { return sealed_; }

  absl::StatusOr<Mapping> Map(Access access) const override {
    const bool write = access == Access::kWrite;
    if (write && sealed_)
      return Refused("SEALED", "memory: expected to be writable, found it sealed");
    if (write) ++memory_->writers;
    return Mapping({memory_->buffer.data(), bytes_}, [memory = memory_, write] {
      if (write) --memory->writers;
    });
  }

  absl::StatusOr<UniqueFd> Share() const override {
    return absl::UnimplementedError("memory: the heap has no descriptors");
  }

  absl::Status Seal(std::uint64_t used_bytes) override {
    if (sealed_) return Refused("SEALED", "memory: expected to be writable, found it sealed");
    if (used_bytes == 0 || used_bytes > bytes_) {
      return absl::InvalidArgumentError(
          absl::StrFormat("memory: used bytes: expected 1 to %d, found %d", bytes_, used_bytes));
    }
    if (memory_->writers > 0) {
      return Refused("STILL_MAPPED", "memory: expected no writable mapping, found one");
    }
    bytes_ = (used_bytes + kEntryPage - 1) / kEntryPage * kEntryPage;
    sealed_ = true;
    return absl::OkStatus();
  }

 private:
  const std::shared_ptr<HeapMemory> memory_;
  std::uint64_t bytes_;
  bool sealed_ = false;
};

class HeapPlane final : public MemoryPlane {
 public:
  engine::MemoryKind memory() const override { return engine::MemoryKind::kHost; }
  std::uint64_t granularity() const override { return kEntryPage; }

  absl::StatusOr<std::unique_ptr<Region>> Allocate(std::uint64_t bytes) override {
    if (bytes == 0) return absl::InvalidArgumentError("memory: expected 1 byte or more, found 0");
    if (bytes > kMaxBytes) {
      return MakeError(
          absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY",
          absl::StrFormat("memory: expected at most %d bytes, found %d", kMaxBytes, bytes));
    }
    return std::make_unique<HeapRegion>((bytes + kEntryPage - 1) / kEntryPage * kEntryPage);
  }

 private:
  static constexpr std::uint64_t kMaxBytes = std::uint64_t{1} << 40;
};

}  // namespace

std::unique_ptr<MemoryPlane> MakeHeapPlane() { return std::make_unique<HeapPlane>(); }

}  // namespace maskkv::arena
