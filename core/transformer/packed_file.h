// SPDX-License-Identifier: Apache-2.0
//
// One file of packed matrices, written once and mapped read-only by every process that computes
// with them: the page cache holds one copy. docs/weights_cache.md describes the bytes.
//
// A reader plans the file before it opens it: names, layouts and sizes of all matrices, hence every
// offset. Nothing in a file steers the reader; what it says has to equal what was planned. So a
// file of other weights, another machine or another version is refused, and so is a damaged one:
// header, description and every chunk of the payload carry checksums, all of which Open verifies
// (the pages that it touches are those that the first step needs).
//
// Ownership: PackedFile owns the mapping; its bytes stay where they are when it is moved. As with
// every mapped file, nobody may truncate or write it while it is mapped: writers make a new file
// and rename it. Thread safety: PackedFile is immutable; a writer belongs to one thread.
#ifndef MASKKV_CORE_TRANSFORMER_PACKED_FILE_H_
#define MASKKV_CORE_TRANSFORMER_PACKED_FILE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/unique_fd.h"
#include "kernels/parallel/worker_pool.h"

namespace maskkv::transformer {

// What one file holds and where.
class PackedPlan {
 public:
  // model: what the matrices are of, in one line.
  explicit PackedPlan(std::string_view model);
  // The next matrix. bytes >= 1; layout: kernels::PackedMatrix::Layout.
  void Add(std::string_view name, std::string_view layout, std::int64_t bytes);

  std::size_t sections() const { return sizes_.size(); }
  std::int64_t bytes(std::size_t section) const { return sizes_[section]; }
  std::int64_t Offset(std::size_t section) const;
  std::int64_t file_bytes() const { return PayloadOffset() + payload_bytes_; }
  // Names, layouts and sizes, a line each: equal for equal files.
  const std::string& description() const { return description_; }
  // 64 hexadecimal digits of the description.
  std::string Key() const;

  // Checksums are of so many bytes of a section, the last of a section of what is left.
  static constexpr std::int64_t kChunk = std::int64_t{4} << 20;
  std::int64_t chunks() const { return chunks_; }
  std::int64_t FirstChunk(std::size_t section) const { return first_chunks_[section]; }
  std::int64_t PayloadOffset() const;

 private:
  std::string description_;
  std::vector<std::int64_t> sizes_, offsets_, first_chunks_;  // offsets within the payload
  std::int64_t payload_bytes_ = 0, chunks_ = 0;
};

// What the matrices were packed from.
struct PackedSource {
  std::array<std::byte, 32> stamp{};    // of the files: names, sizes, times of change
  std::array<std::byte, 16> content{};  // of the tensors' bytes
};

class PackedFile {
 public:
  // Maps and verifies. Errors: NOT_FOUND if there is no such file; FAILED_PRECONDITION for a file
  // that is not the planned one and DATA_LOSS for a damaged one, with the field, what was expected
  // and found; what the system says.
  static absl::StatusOr<PackedFile> Open(const std::string& path, const PackedPlan& plan,
                                         kernels::WorkerPool& pool);
  PackedFile(PackedFile&& other) noexcept;
  PackedFile& operator=(PackedFile&& other) noexcept;
  ~PackedFile();

  const PackedSource& source() const { return source_; }
  // Where files are kept in memory alone (tmpfs), puts them into huge pages, for all processes; the
  // caches of other file systems refuse it. Takes about as long as writing did.
  void AskForHugePages() const;

  // The bytes at an offset of the plan; aligned to pages.
  const std::byte* At(std::int64_t offset) const { return mapped_ + offset; }

 private:
  PackedFile() = default;
  absl::Status Map(const std::string& path, const PackedPlan& plan);
  absl::Status Verify(const std::string& path, const PackedPlan& plan, kernels::WorkerPool& pool);

  std::byte* mapped_ = nullptr;  // within reserved_, on a huge page's boundary
  std::span<std::byte> reserved_;
  PackedSource source_;
};

class PackedFileWriter {
 public:
  // Makes `path` empty with room for the whole plan. Errors: what the system says (a full disk here
  // and not later, where the file system can promise room).
  static absl::StatusOr<PackedFileWriter> Create(const std::string& path, const PackedPlan& plan);

  // A section's bytes; each once, in any order. Errors: what the system says.
  absl::Status Write(std::size_t section, const std::byte* bytes, kernels::WorkerPool& pool);

  // Header and checksums; flushes to the device; then the file is named `path`. REQUIRES: every
  // section has been written. Errors: what the system says.
  absl::Status Finish(const PackedSource& source, const std::string& path);

 private:
  PackedFileWriter(UniqueFd file, std::string path, const PackedPlan& plan);

  UniqueFd file_;
  std::string path_;
  const PackedPlan& plan_;
  std::vector<std::uint64_t> checksums_;
};

}  // namespace maskkv::transformer

#endif  // MASKKV_CORE_TRANSFORMER_PACKED_FILE_H_
