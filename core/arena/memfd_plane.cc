// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "absl/strings/str_format.h"
#include "core/arena/layout.h"
#include "core/arena/plane.h"
#include "core/base/error.h"
#include "core/base/status_macros.h"

namespace maskkv::arena {
namespace {

constexpr unsigned int kNoExecSeal = 8;  // MFD_NOEXEC_SEAL of Linux 6.3

constexpr int kForEver = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW;

absl::Status SystemError(std::string_view call, int error) {
  return MakeError(absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY",
                   absl::StrFormat("memory: %s: expected success, found errno %d (%s)", call, error,
                                   std::strerror(error)));
}

absl::Status NotSealed(std::string_view found) {
  return MakeError(absl::StatusCode::kFailedPrecondition, "NOT_SEALED",
                   absl::StrFormat("memory: expected to be sealed, found %s", found));
}

std::uint64_t MachineBytes() {
  const long pages = ::sysconf(_SC_PHYS_PAGES);
  const long page = ::sysconf(_SC_PAGESIZE);
  return pages > 0 && page > 0
             ? static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(page)
             : 0;
}

absl::StatusOr<std::uint64_t> FileBytes(int descriptor) {
  struct stat status {};
  if (::fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) {
    return absl::InvalidArgumentError("memory: expected a descriptor of a file");
  }
  return static_cast<std::uint64_t>(status.st_size);
}

class MemfdRegion final : public Region {
 public:
  MemfdRegion(UniqueFd descriptor, std::uint64_t bytes)
      : descriptor_(std::move(descriptor)), bytes_(bytes) {}

  std::uint64_t bytes() const override { return bytes_; }
  bool sealed() const override { return sealed_; }

  absl::StatusOr<Mapping> Map(Access access) const override {
    if (access == Access::kWrite && sealed_) {
      return MakeError(absl::StatusCode::kFailedPrecondition, "SEALED",
                       "memory: expected to be writable, found it sealed");
    }
    return MapDescriptor(descriptor_.get(), bytes_, access);
  }

  absl::StatusOr<UniqueFd> Share() const override {
    UniqueFd copy(::fcntl(descriptor_.get(), F_DUPFD_CLOEXEC, 0));
    if (!copy.valid()) return SystemError("dup", errno);
    return copy;
  }

  absl::Status Seal(std::uint64_t used_bytes) override {
    if (sealed_) {
      return MakeError(absl::StatusCode::kFailedPrecondition, "SEALED",
                       "memory: expected to be writable, found it sealed");
    }
    if (used_bytes == 0 || used_bytes > bytes_) {
      return absl::InvalidArgumentError(
          absl::StrFormat("memory: used bytes: expected 1 to %d, found %d", bytes_, used_bytes));
    }
    // Writing first: it alone can be refused for a good reason, and then nothing has changed.
    if (::fcntl(descriptor_.get(), F_ADD_SEALS, F_SEAL_WRITE) != 0 && errno == EBUSY) {
      return MakeError(absl::StatusCode::kFailedPrecondition, "STILL_MAPPED",
                       "memory: expected no writable mapping, found one");
    }
    const std::uint64_t rounded = (used_bytes + kEntryPage - 1) / kEntryPage * kEntryPage;
    // A peer that holds the descriptor may have shrunk or sealed it: then one of these fails, or
    // what they leave is not what it should be.
    (void)::ftruncate(descriptor_.get(), static_cast<off_t>(rounded));
    (void)::fcntl(descriptor_.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW);
    (void)::fcntl(descriptor_.get(), F_ADD_SEALS, F_SEAL_SEAL);
    MASKKV_RETURN_IF_ERROR(CheckSealed(descriptor_.get()));
    MASKKV_ASSIGN_OR_RETURN(const std::uint64_t found, FileBytes(descriptor_.get()));
    if (found != rounded)
      return NotSealed(absl::StrFormat("%d bytes instead of %d", found, rounded));
    bytes_ = rounded;
    sealed_ = true;
    return absl::OkStatus();
  }

 private:
  const UniqueFd descriptor_;
  std::uint64_t bytes_;
  bool sealed_ = false;
};

class MemfdPlane final : public MemoryPlane {
 public:
  explicit MemfdPlane(std::string name) : name_(std::move(name)) {}

  engine::MemoryKind memory() const override { return engine::MemoryKind::kHost; }
  std::uint64_t granularity() const override { return kEntryPage; }

  absl::StatusOr<std::unique_ptr<Region>> Allocate(std::uint64_t bytes) override {
    if (bytes == 0) return absl::InvalidArgumentError("memory: expected 1 byte or more, found 0");
    // A memfd has no size of its own to run into: fallocate would take page after page until the
    // system kills somebody.
    if (const std::uint64_t most = MachineBytes(); bytes > most) {
      return MakeError(absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY",
                       absl::StrFormat("memory: expected at most the machine's %d bytes, found %d",
                                       most, bytes));
    }
    const std::uint64_t rounded = (bytes + kEntryPage - 1) / kEntryPage * kEntryPage;
    UniqueFd descriptor(
        ::memfd_create(name_.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING | kNoExecSeal));
    if (!descriptor.valid() && errno == EINVAL) {
      descriptor.Reset(::memfd_create(name_.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
    }
    if (!descriptor.valid()) return SystemError("memfd_create", errno);
    // Pages are there before anybody else has the descriptor: they are charged to this process, and
    // no write of a peer can run out of memory.
    while (::fallocate(descriptor.get(), 0, 0, static_cast<off_t>(rounded)) != 0) {
      if (errno != EINTR) return SystemError("fallocate", errno);
    }
    if (::fcntl(descriptor.get(), F_ADD_SEALS, F_SEAL_GROW) != 0) {
      return SystemError("F_SEAL_GROW", errno);
    }
    return std::make_unique<MemfdRegion>(std::move(descriptor), rounded);
  }

 private:
  const std::string name_;
};

}  // namespace

std::unique_ptr<MemoryPlane> MakeMemfdPlane(std::string name) {
  return std::make_unique<MemfdPlane>(std::move(name));
}

absl::StatusOr<Mapping> MapDescriptor(int descriptor, std::uint64_t bytes, Access access) {
  MASKKV_ASSIGN_OR_RETURN(const std::uint64_t size, FileBytes(descriptor));
  if (bytes == 0 || bytes > size) {
    return absl::InvalidArgumentError(
        absl::StrFormat("memory: expected %d bytes, at least 1, found %d", bytes, size));
  }
  // Private for reading: the pages are the same ones, but a shared mapping of a writable descriptor
  // counts as one that could become writable. It would keep the memory from being sealed, and
  // before Linux 6.7 sealed memory refuses it.
  const bool write = access == Access::kWrite;
  void* const address = ::mmap(nullptr, bytes, write ? PROT_READ | PROT_WRITE : PROT_READ,
                               write ? MAP_SHARED : MAP_PRIVATE, descriptor, 0);
  if (address == MAP_FAILED) return SystemError("mmap", errno);
  return Mapping({static_cast<std::byte*>(address), bytes},
                 [address, bytes] { ::munmap(address, bytes); });
}

absl::Status CheckSealed(int descriptor) {
  const int seals = ::fcntl(descriptor, F_GET_SEALS);
  if (seals < 0) return NotSealed("a descriptor without seals");
  if ((seals & kForEver) != kForEver) return NotSealed(absl::StrFormat("seals %d", seals));
  return absl::OkStatus();
}

}  // namespace maskkv::arena
