// SPDX-License-Identifier: Apache-2.0
//
// Turns between threads of one process (turns.h): a mutex, and a line of waiters for each side.
//
// Invariants: at most one turn runs; while nobody's runs, nobody waits who may run; a tile is owed
// from the end of a step until a tile begins or none is wanted.
#ifndef MASKKV_CORE_SCHEDULE_COMPUTE_TURNS_H_
#define MASKKV_CORE_SCHEDULE_COMPUTE_TURNS_H_

#include <array>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>

#include "core/schedule/turns.h"

namespace maskkv::schedule {

class ComputeTurns final : public Turns {
 public:
  // prefill_share: of a step's time that tiles may take after it before the next step, at least
  // one tile. REQUIRES: prefill_share >= 0. The clock is borrowed.
  ComputeTurns(double prefill_share, const Clock& clock);
  ~ComputeTurns() override;

  TurnWait Begin(Side side) override;
  TurnWait GiveWay() override;
  void End(Side side) override;

  // Threads that wait in Begin or GiveWay.
  std::int64_t waiting(Side side) const;

  // Aborts if an invariant does not hold.
  void CheckInvariants() const;

 private:
  using Line = std::deque<std::uint64_t>;
  Line& line(Side side) { return lines_[static_cast<std::size_t>(side)]; }
  const Line& line(Side side) const { return lines_[static_cast<std::size_t>(side)]; }

  // Whom the free cores belong to, if anybody waits.
  std::optional<Side> Next() const;
  TurnWait Wait(std::unique_lock<std::mutex>& lock, Side side);
  void Finish(Side side);

  const double prefill_share_;
  const Clock& clock_;

  mutable std::mutex mu_;
  std::condition_variable changed_;
  // Guarded by mu_.
  std::array<Line, 2> lines_;  // tickets that wait, by side
  std::uint64_t next_ticket_ = 1;
  std::optional<Side> running_;
  bool tile_owed_ = false;  // since a step's end
  TimePoint step_began_, share_ends_;
};

}  // namespace maskkv::schedule

#endif  // MASKKV_CORE_SCHEDULE_COMPUTE_TURNS_H_
