// SPDX-License-Identifier: Apache-2.0
#include "core/schedule/file_turns.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <random>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/check.h"

namespace maskkv::schedule {
namespace {

// Bytes that are locked, behind the content: the turn, and who wants one of each side.
constexpr off_t kTurn = 4096, kWants = 4097;

// Looks of a waiter: a short tile is over soon, a long one need not be watched closely.
constexpr int kQuickLooks = 10;
constexpr std::chrono::microseconds kQuickLook{100}, kLook{500};

Side Other(Side side) { return side == Side::kStep ? Side::kTile : Side::kStep; }

off_t WantsOf(Side side) { return kWants + static_cast<off_t>(side); }

// Sets or, with F_OFD_GETLK, looks for a lock on one byte.
int Lock(int file, int command, off_t byte, short type, struct flock& lock) {
  lock = {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = byte;
  lock.l_len = 1;
  return ::fcntl(file, command, &lock);
}

bool SetLock(int file, off_t byte, short type) {
  struct flock lock;
  return Lock(file, F_OFD_SETLK, byte, type, lock) == 0;
}

// Whether somebody else has a lock on the byte.
bool IsLocked(int file, off_t byte) {
  struct flock lock;
  return Lock(file, F_OFD_GETLK, byte, F_WRLCK, lock) == 0 && lock.l_type != F_UNLCK;
}

std::uint64_t RandomName() {
  std::random_device random;
  return (std::uint64_t{random()} << 32) | random();
}

std::int64_t Nanoseconds(TimePoint at) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(at.time_since_epoch()).count();
}

}  // namespace

absl::StatusOr<std::unique_ptr<FileTurns>> FileTurns::Open(const std::string& path,
                                                           const FileTurnsOptions& options) {
  // Not blocking: opening a pipe must not wait for its other end.
  UniqueFd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW, 0600));
  if (!file.valid()) {
    return absl::ErrnoToStatus(errno, absl::StrCat(path, ": expected a file to take turns by"));
  }
  struct stat about {};
  if (::fstat(file.get(), &about) != 0 || !S_ISREG(about.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": expected a regular file to take turns by, found something else"));
  }
  struct flock lock;
  if (Lock(file.get(), F_OFD_GETLK, kTurn, F_WRLCK, lock) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": expected a file system with locks of open files, found none"));
  }
  return std::unique_ptr<FileTurns>(new FileTurns(std::move(file), options));
}

FileTurns::FileTurns(UniqueFd file, const FileTurnsOptions& options)
    : file_(std::move(file)), options_(options), name_(RandomName()) {}

FileTurns::Record FileTurns::Read() const {
  Record record;
  if (::pread(file_.get(), &record, sizeof record, 0) != sizeof record) return {};
  return record;
}

void FileTurns::Write(const Record& record) const {
  // A hint that cannot be written is one that is not there.
  [[maybe_unused]] const ssize_t written = ::pwrite(file_.get(), &record, sizeof record, 0);
}

bool FileTurns::Want(bool want) const {
  return SetLock(file_.get(), WantsOf(options_.side), want ? F_RDLCK : F_UNLCK);
}

bool FileTurns::OthersWant(Side side) const { return IsLocked(file_.get(), WantsOf(side)); }

bool FileTurns::MayGo(const Record& record) const {
  const auto own = static_cast<std::size_t>(options_.side);
  if (trusts_other_side_ && record.last_side == own + 1 && OthersWant(Other(options_.side))) {
    return false;
  }
  return !trusts_own_side_ || record.last_of[own] != name_ || !OthersWant(options_.side);
}

bool FileTurns::TryBegin() {
  if (!MayGo(Read())) return false;  // without touching the lock that others try for
  if (!SetLock(file_.get(), kTurn, F_WRLCK)) return false;
  const auto own = static_cast<std::size_t>(options_.side);
  Record record = Read();
  if (!MayGo(record)) {
    SetLock(file_.get(), kTurn, F_UNLCK);
    return false;
  }
  if (record.last_side != own + 1) trusts_other_side_ = true;
  if (record.last_of[own] != name_) trusts_own_side_ = true;
  record.last_side = own + 1;
  record.last_of[own] = name_;
  Write(record);
  Want(false);
  mine_ = true;
  began_ = std::chrono::steady_clock::now();
  return true;
}

TurnWait FileTurns::Wait() {
  if (TryBegin()) return {};
  Want(true);
  const TimePoint asked = std::chrono::steady_clock::now();
  TurnWait wait{.waited = true};
  for (int look = 0; trusts_other_side_ && !TryBegin(); ++look) {
    if (std::chrono::steady_clock::now() - asked >= options_.longest_wait) {
      trusts_other_side_ = trusts_own_side_ = false;
    } else {
      std::this_thread::sleep_for(look < kQuickLooks ? kQuickLook : kLook);
    }
  }
  wait.time = std::chrono::steady_clock::now() - asked;
  // That it is wanted stays said: whoever has the turn gives way as soon as it goes on.
  wait.missed = !mine_ && !TryBegin();
  return wait;
}

TurnWait FileTurns::Begin(Side side) {
  MASKKV_CHECK(side == options_.side && !mine_, "a turn of this side, one at a time");
  return Wait();
}

bool FileTurns::HasShare() const {
  const Record record = Read();
  // No more than half of what a step waits, whatever stands there.
  const double most = std::chrono::duration<double, std::nano>(options_.longest_wait).count() / 2;
  const double share =
      std::clamp(options_.prefill_share * static_cast<double>(record.step_time), 0.0, most);
  const TimePoint now = std::chrono::steady_clock::now();
  if (std::chrono::duration<double, std::nano>(now - began_).count() >= most) return false;
  return static_cast<double>(Nanoseconds(now)) < static_cast<double>(record.step_ended) + share;
}

TurnWait FileTurns::GiveWay() {
  MASKKV_CHECK(options_.side == Side::kTile, "a tile gives way");
  if (mine_) {
    const bool way = OthersWant(Side::kTile) || (OthersWant(Side::kStep) && !HasShare());
    if (!way) return {};
    End(Side::kTile);
  }
  return Wait();
}

void FileTurns::End(Side side) {
  MASKKV_CHECK(side == options_.side, "a turn of this side");
  if (!mine_) return;  // it was missed
  if (side == Side::kStep) {
    Record record = Read();
    const TimePoint now = std::chrono::steady_clock::now();
    record.step_ended = Nanoseconds(now);
    record.step_time = Nanoseconds(now) - Nanoseconds(began_);
    Write(record);
  }
  mine_ = false;
  SetLock(file_.get(), kTurn, F_UNLCK);
}

}  // namespace maskkv::schedule
