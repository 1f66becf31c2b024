// SPDX-License-Identifier: Apache-2.0
#include "services/maskkv/input.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_format.h"
#include "services/maskkv/command.h"

namespace maskkv::cli {
namespace {

// How long a signal may go unnoticed that arrives between looking for one and waiting for input.
constexpr int kWaitMilliseconds = 100;

absl::Status Unreadable(const std::string& path) {
  // What is unusual about a path (it is a folder, say) is wrong input too.
  const absl::Status status =
      absl::ErrnoToStatus(errno, absl::StrFormat("%s: expected a readable file, found", path));
  return absl::IsUnknown(status) || absl::IsInternal(status)
             ? absl::InvalidArgumentError(status.message())
             : status;
}

// False if a signal came first.
bool WaitForInput(int fd) {
  pollfd waiting{.fd = fd, .events = POLLIN, .revents = 0};
  while (!Interrupted()) {
    // Whatever is wrong with the file, reading it will tell.
    if (poll(&waiting, 1, kWaitMilliseconds) != 0 && !Interrupted()) return true;
  }
  return false;
}

absl::StatusOr<std::string> ReadAll(int fd, const std::string& path, std::size_t max_bytes) {
  std::string text;
  char buffer[1 << 16];
  while (true) {
    if (!WaitForInput(fd)) return absl::CancelledError("interrupted");
    const ssize_t count = read(fd, buffer, sizeof(buffer));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Unreadable(path);
    if (count == 0) return text;
    text.append(buffer, static_cast<std::size_t>(count));
    if (text.size() > max_bytes) {
      return absl::ResourceExhaustedError(
          absl::StrFormat("%s: expected at most %d bytes, found more", path, max_bytes));
    }
  }
}

}  // namespace

absl::StatusOr<std::string> ReadInput(const std::string& path, std::size_t max_bytes) {
  if (path == "-") return ReadAll(STDIN_FILENO, path, max_bytes);
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return Unreadable(path);
  absl::StatusOr<std::string> text = ReadAll(fd, path, max_bytes);
  close(fd);
  return text;
}

}  // namespace maskkv::cli
