// SPDX-License-Identifier: Apache-2.0
#include "core/base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"

namespace maskkv {
namespace {

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;

  bool valid() const { return fd_ >= 0; }
  int get() const { return fd_; }
  // False if closing reports a write that failed late.
  bool Close() { return ::close(std::exchange(fd_, -1)) == 0; }

 private:
  int fd_;
};

absl::Status SystemError(const std::string& path, const char* action) {
  return absl::ErrnoToStatus(errno, absl::StrFormat("%s: cannot %s", path, action));
}

bool WriteAll(int fd, std::string_view contents) {
  while (!contents.empty()) {
    const ssize_t written = ::write(fd, contents.data(), contents.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    contents.remove_prefix(static_cast<std::size_t>(written));
  }
  return true;
}

std::string DirectoryOf(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

absl::StatusOr<std::string> ReadFile(const std::string& path, std::int64_t max_bytes) {
  // O_NONBLOCK: opening a pipe that nobody writes must not wait.
  const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file.valid()) return SystemError(path, "open");
  struct stat info {};
  if (::fstat(file.get(), &info) != 0) return SystemError(path, "read");
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: expected a regular file, found something else", path));
  }
  std::string contents;
  const auto limit = static_cast<std::size_t>(max_bytes);
  // One byte more than allowed, so that a file that grows while it is read is noticed too.
  contents.resize(std::min(static_cast<std::size_t>(info.st_size), limit) + 1);
  std::size_t filled = 0;
  while (true) {
    const ssize_t count = ::read(file.get(), contents.data() + filled, contents.size() - filled);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return SystemError(path, "read");
    if (count == 0) break;
    filled += static_cast<std::size_t>(count);
    if (filled > limit) {
      return absl::InvalidArgumentError(
          absl::StrFormat("%s: expected at most %d bytes, found more", path, max_bytes));
    }
    if (filled == contents.size()) contents.resize(std::min(2 * filled, limit + 1));
  }
  contents.resize(filled);
  return contents;
}

absl::Status WriteFileAtomically(const std::string& path, std::string_view contents) {
  std::string temporary = path + ".tmp.XXXXXX";
  FileDescriptor file(::mkostemp(temporary.data(), O_CLOEXEC));
  if (!file.valid()) return SystemError(path, "create a temporary file beside it");
  const char* failed = nullptr;
  if (!WriteAll(file.get(), contents)) {
    failed = "write";
  } else if (::fchmod(file.get(), S_IRUSR | S_IWUSR | S_IRGRP | S_IROTH) != 0) {
    failed = "set the mode";
  } else if (::fsync(file.get()) != 0 || !file.Close()) {
    failed = "flush";
  } else if (std::rename(temporary.c_str(), path.c_str()) != 0) {
    failed = "rename a temporary file to it";
  }
  if (failed != nullptr) {
    absl::Status status = SystemError(path, failed);
    ::unlink(temporary.c_str());
    return status;
  }
  // The new name survives a power loss only once the directory is on the device.
  const FileDescriptor directory(
      ::open(DirectoryOf(path).c_str(), O_RDONLY | O_CLOEXEC | O_DIRECTORY));
  if (!directory.valid() || ::fsync(directory.get()) != 0) {
    return SystemError(path, "flush the directory");
  }
  return absl::OkStatus();
}

}  // namespace maskkv
