// SPDX-License-Identifier: Apache-2.0
//
// Turns between processes of one machine (turns.h), through a file that they all name. Each process
// has one FileTurns and one side.
//
// What counts is held as locks on bytes of the open file (F_OFD_SETLK): whose turn it is, and who
// waits. The kernel drops them with the process, so one that is killed leaves nothing behind. The
// file's content, a few numbers that say whose turn the last was and how long the last step took,
// is a hint: whatever stands there, no address is made of it and nobody waits longer. Waiting looks
// again every fraction of a millisecond.
//
// A process that is stopped, or damage by others, costs `longest_wait` once: then this side
// computes without a turn, looks for one without waiting each time, and waits again as soon as the
// other side has had a turn.
//
// The file stays when its processes have gone. A process that opens another file of the same name,
// because the old one was removed, takes turns with nobody but those who open it from then on.
#ifndef MASKKV_CORE_SCHEDULE_FILE_TURNS_H_
#define MASKKV_CORE_SCHEDULE_FILE_TURNS_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "core/base/unique_fd.h"
#include "core/schedule/turns.h"

namespace maskkv::schedule {

struct FileTurnsOptions {
  Side side = Side::kStep;
  double prefill_share = kPrefillShare;  // of side kTile; as ComputeTurns
  // What waits longer is missed; it should be longer than turns are. The prefill's share is at most
  // half of it.
  Duration longest_wait = std::chrono::seconds(10);
};

class FileTurns final : public Turns {
 public:
  // Makes the file unless it is there, for this user alone.
  // Errors: INVALID_ARGUMENT (no regular file), those of open, FAILED_PRECONDITION (a file system
  // without locks of open files).
  static absl::StatusOr<std::unique_ptr<FileTurns>> Open(const std::string& path,
                                                         const FileTurnsOptions& options);

  // One thread at a time; side is the options'.
  TurnWait Begin(Side side) override;
  TurnWait GiveWay() override;
  void End(Side side) override;

  // Whether another process waits for a turn of that side now.
  bool OthersWant(Side side) const;

 private:
  // What the file says, under the turn's lock or as a first look.
  struct Record {
    std::uint64_t last_side = 0;        // 1 + Side of the last turn; others: unknown
    std::uint64_t last_of[2] = {0, 0};  // names of who had each side's last turn
    std::int64_t step_ended = 0;        // nanoseconds of the steady clock, as what follows
    std::int64_t step_time = 0;
  };

  FileTurns(UniqueFd file, const FileTurnsOptions& options);

  Record Read() const;
  void Write(const Record& record) const;
  bool Want(bool want) const;
  bool MayGo(const Record& record) const;
  // Takes the turn if it is free and nobody is to go before.
  bool TryBegin();
  TurnWait Wait();
  bool HasShare() const;

  const UniqueFd file_;
  const FileTurnsOptions options_;
  const std::uint64_t name_;

  bool mine_ = false;  // the turn
  // No wait was given up since the last turn of the other side, of another one of this side.
  bool trusts_other_side_ = true, trusts_own_side_ = true;
  TimePoint began_;
};

}  // namespace maskkv::schedule

#endif  // MASKKV_CORE_SCHEDULE_FILE_TURNS_H_
