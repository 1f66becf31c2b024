// SPDX-License-Identifier: Apache-2.0
#include "core/transformer/packed_file.h"

#include <fcntl.h>
#include <linux/mman.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <tuple>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/sha256.h"
#include "core/base/status_macros.h"
#include "core/transformer/packed_file_bytes.h"
#include "kernels/base/round_up.h"

namespace maskkv::transformer {
namespace {

using kernels::RoundUp;

constexpr std::size_t kHugePage = std::size_t{1} << 21;

absl::Status SystemError(const std::string& path, const char* action) {
  return absl::ErrnoToStatus(errno, absl::StrFormat("%s: cannot %s", path, action));
}

absl::Status Foreign(const std::string& path, std::string_view field, std::int64_t expected,
                     std::uint64_t found) {
  return absl::FailedPreconditionError(
      absl::StrFormat("%s: field %s: expected %d, found %d", path, field, expected, found));
}

// Every field but the checksum and the source is what the plan says.
absl::Status CheckHeader(const std::string& path, const PackedHeader& header,
                         const PackedPlan& plan) {
  const auto chars = static_cast<std::int64_t>(plan.description().size());
  const std::tuple<std::string_view, std::uint64_t, std::int64_t> fields[] = {
      {"magic", header.magic, static_cast<std::int64_t>(kPackedMagic)},
      {"version", header.version, static_cast<std::int64_t>(kPackedVersion)},
      {"file_bytes", header.file_bytes, plan.file_bytes()},
      {"description_bytes", header.description_bytes, chars},
      {"chunks", header.chunks, plan.chunks()},
      {"payload_offset", header.payload_offset, plan.PayloadOffset()},
  };
  for (const auto& [name, found, expected] : fields) {
    if (found != static_cast<std::uint64_t>(expected)) return Foreign(path, name, expected, found);
  }
  return absl::OkStatus();
}

// body(section, byte of it, bytes, chunk) of every chunk, on all workers.
template <typename Body>
void ForEachChunk(const PackedPlan& plan, kernels::WorkerPool& pool, std::size_t first,
                  std::size_t last, const Body& body) {
  for (std::size_t section = first; section < last; ++section) {
    const std::int64_t bytes = plan.bytes(section);
    pool.ParallelFor((bytes + PackedPlan::kChunk - 1) / PackedPlan::kChunk,
                     [&](std::int64_t chunk, int) {
                       const std::int64_t begin = chunk * PackedPlan::kChunk;
                       body(section, begin, std::min(PackedPlan::kChunk, bytes - begin),
                            plan.FirstChunk(section) + chunk);
                     });
  }
}

std::uint64_t ChecksumOf(const std::byte* bytes, std::int64_t count) {
  return XXH3_64bits(bytes, static_cast<std::size_t>(count));
}

bool WriteAt(int file, const void* bytes, std::int64_t count, std::int64_t offset) {
  const auto* next = static_cast<const char*>(bytes);
  while (count > 0) {
    const ssize_t written = ::pwrite(file, next, static_cast<std::size_t>(count), offset);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    next += written;
    offset += written;
    count -= written;
  }
  return true;
}

}  // namespace

PackedPlan::PackedPlan(std::string_view model)
    : description_(absl::StrFormat("maskkv packed weights %d\n%s\n", kPackedVersion, model)) {}

void PackedPlan::Add(std::string_view name, std::string_view layout, std::int64_t bytes) {
  description_ += absl::StrFormat("%s %d %s\n", name, bytes, layout);
  sizes_.push_back(bytes);
  offsets_.push_back(payload_bytes_);
  first_chunks_.push_back(chunks_);
  payload_bytes_ += RoundUp(bytes, kPackedPage);
  chunks_ += (bytes + kChunk - 1) / kChunk;
}

std::int64_t PackedPlan::PayloadOffset() const {
  const auto before = static_cast<std::int64_t>(sizeof(PackedHeader) + description_.size());
  return RoundUp(RoundUp(before, 8) + 8 * chunks_, kPackedPage);
}

std::int64_t PackedPlan::Offset(std::size_t section) const {
  return PayloadOffset() + offsets_[section];
}

std::string PackedPlan::Key() const {
  Sha256 hash;
  hash.AddPart(description_);
  return Hex(hash.Finish());
}

PackedFile::PackedFile(PackedFile&& other) noexcept
    : mapped_(std::exchange(other.mapped_, nullptr)),
      reserved_(std::exchange(other.reserved_, {})),
      source_(other.source_) {}

PackedFile& PackedFile::operator=(PackedFile&& other) noexcept {
  std::swap(mapped_, other.mapped_);
  std::swap(reserved_, other.reserved_);
  std::swap(source_, other.source_);
  return *this;
}

PackedFile::~PackedFile() {
  if (reserved_.data() != nullptr) ::munmap(reserved_.data(), reserved_.size());
}

absl::StatusOr<PackedFile> PackedFile::Open(const std::string& path, const PackedPlan& plan,
                                            kernels::WorkerPool& pool) {
  PackedFile file;
  MASKKV_RETURN_IF_ERROR(file.Map(path, plan));
  MASKKV_RETURN_IF_ERROR(file.Verify(path, plan, pool));
  return file;
}

absl::Status PackedFile::Map(const std::string& path, const PackedPlan& plan) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file.valid()) return SystemError(path, "open");
  struct stat info {};
  if (::fstat(file.get(), &info) != 0) return SystemError(path, "read");
  if (!S_ISREG(info.st_mode)) {
    return absl::FailedPreconditionError(path + ": expected a regular file, found something else");
  }
  if (info.st_size != plan.file_bytes()) {
    return absl::FailedPreconditionError(
        absl::StrFormat("%s: expected %d bytes, found %d", path, plan.file_bytes(), info.st_size));
  }
  // Huge pages need the file's start at a huge page's boundary: room is reserved to find one.
  const auto size = static_cast<std::size_t>(plan.file_bytes());
  void* const room = ::mmap(nullptr, size + kHugePage, PROT_NONE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (room == MAP_FAILED) return SystemError(path, "reserve addresses for it");
  reserved_ = {static_cast<std::byte*>(room), size + kHugePage};
  const std::size_t past = reinterpret_cast<std::uintptr_t>(room) % kHugePage;
  std::byte* const start = reserved_.data() + (past == 0 ? 0 : kHugePage - past);
  if (::mmap(start, size, PROT_READ, MAP_SHARED | MAP_FIXED, file.get(), 0) == MAP_FAILED) {
    return SystemError(path, "map");
  }
  ::madvise(start, size, MADV_HUGEPAGE);  // a hint, taken where the file system's cache has them
  mapped_ = start;
  return absl::OkStatus();
}

void PackedFile::AskForHugePages() const {
#ifdef MADV_COLLAPSE
  ::madvise(mapped_, (reserved_.size() - kHugePage) / kHugePage * kHugePage, MADV_COLLAPSE);
#endif
}

absl::Status PackedFile::Verify(const std::string& path, const PackedPlan& plan,
                                kernels::WorkerPool& pool) {
  PackedHeader header;
  std::memcpy(&header, mapped_, sizeof(header));
  MASKKV_RETURN_IF_ERROR(CheckHeader(path, header, plan));
  const std::string_view description(reinterpret_cast<const char*>(mapped_) + sizeof(header),
                                     plan.description().size());
  if (description != plan.description()) {
    return absl::FailedPreconditionError(
        path + ": field description: expected this model's matrices, found others");
  }
  const std::int64_t at =
      RoundUp(static_cast<std::int64_t>(sizeof(header) + description.size()), 8);
  const std::span checksums(reinterpret_cast<const std::uint64_t*>(mapped_ + at),
                            static_cast<std::size_t>(plan.chunks()));
  if (header.checksum != PackedHeaderChecksum(header, description, checksums)) {
    return absl::DataLossError(path + ": checksum of the header: expected its own, found another");
  }
  std::atomic<std::int64_t> damaged{-1};
  ForEachChunk(
      plan, pool, 0, plan.sections(),
      [&](std::size_t section, std::int64_t begin, std::int64_t count, std::int64_t chunk) {
        const std::int64_t offset = plan.Offset(section) + begin;
        if (ChecksumOf(At(offset), count) != checksums[static_cast<std::size_t>(chunk)]) {
          damaged = offset;
        }
      });
  if (damaged >= 0) {
    return absl::DataLossError(
        absl::StrFormat("%s: checksum of the bytes from %d on: expected its own, found another",
                        path, damaged.load()));
  }
  std::memcpy(source_.stamp.data(), header.source_stamp, sizeof(header.source_stamp));
  std::memcpy(source_.content.data(), header.source_content, sizeof(header.source_content));
  return absl::OkStatus();
}

PackedFileWriter::PackedFileWriter(UniqueFd file, std::string path, const PackedPlan& plan)
    : file_(std::move(file)),
      path_(std::move(path)),
      plan_(plan),
      checksums_(static_cast<std::size_t>(plan.chunks())) {}

absl::StatusOr<PackedFileWriter> PackedFileWriter::Create(const std::string& path,
                                                          const PackedPlan& plan) {
  // Never what lies there: another process may have it mapped.
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return SystemError(path, "remove");
  UniqueFd file(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_CREAT | O_EXCL, 0444));
  if (!file.valid()) return SystemError(path, "create");
  const int failed = ::fallocate(file.get(), 0, 0, plan.file_bytes()) == 0 ? 0 : errno;
  const bool unpromised = failed == EOPNOTSUPP || failed == ENOSYS;
  if (failed != 0 && !(unpromised && ::ftruncate(file.get(), plan.file_bytes()) == 0)) {
    absl::Status status = absl::ErrnoToStatus(
        failed, absl::StrFormat("%s: cannot get %d bytes", path, plan.file_bytes()));
    ::unlink(path.c_str());
    return status;
  }
  return PackedFileWriter(std::move(file), path, plan);
}

absl::Status PackedFileWriter::Write(std::size_t section, const std::byte* bytes,
                                     kernels::WorkerPool& pool) {
  std::atomic<int> failed{0};
  ForEachChunk(plan_, pool, section, section + 1,
               [&](std::size_t, std::int64_t begin, std::int64_t count, std::int64_t chunk) {
                 checksums_[static_cast<std::size_t>(chunk)] = ChecksumOf(bytes + begin, count);
                 if (!WriteAt(file_.get(), bytes + begin, count, plan_.Offset(section) + begin)) {
                   failed = errno;
                 }
               });
  errno = failed;
  return failed == 0 ? absl::OkStatus() : SystemError(path_, "write");
}

absl::Status PackedFileWriter::Finish(const PackedSource& source, const std::string& path) {
  const std::string& description = plan_.description();
  PackedHeader header{};
  header.magic = kPackedMagic;
  header.version = kPackedVersion;
  header.file_bytes = static_cast<std::uint64_t>(plan_.file_bytes());
  header.description_bytes = description.size();
  header.chunks = checksums_.size();
  header.payload_offset = static_cast<std::uint64_t>(plan_.PayloadOffset());
  std::memcpy(header.source_stamp, source.stamp.data(), sizeof(header.source_stamp));
  std::memcpy(header.source_content, source.content.data(), sizeof(header.source_content));
  header.checksum = PackedHeaderChecksum(header, description, checksums_);
  std::string front(reinterpret_cast<const char*>(&header), sizeof(header));
  front += description;
  front.resize(static_cast<std::size_t>(RoundUp(static_cast<std::int64_t>(front.size()), 8)));
  front.append(reinterpret_cast<const char*>(checksums_.data()), 8 * checksums_.size());
  if (!WriteAt(file_.get(), front.data(), static_cast<std::int64_t>(front.size()), 0)) {
    return SystemError(path_, "write");
  }
  if (::fsync(file_.get()) != 0) return SystemError(path_, "flush");
  // Out of the cache: written pages are small ones. Readers get them back in huge pages.
  ::posix_fadvise(file_.get(), 0, 0, POSIX_FADV_DONTNEED);
  if (std::rename(path_.c_str(), path.c_str()) != 0)
    return SystemError(path, "rename a file to it");
  return absl::OkStatus();
}

}  // namespace maskkv::transformer
