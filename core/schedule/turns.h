// SPDX-License-Identifier: Apache-2.0
//
// Who computes now, prefill or decode: both want every core, and a step that shares them with a
// long prompt's forward takes as long as the scheduler likes. A side computes in its turn only.
//
//   step   a whole denoising step of the batch
//   tile   a piece of a prefill, at most a block of rows through a layer; between two tiles the
//          prefill gives way (GiveWay) if a step waits
//
// Promises, for one step loop and one prefill:
//   - A step that asks waits for the tile that runs. If it asks right after a step while a prefill
//     waits, it waits for that prefill's next tile, and for those that begin before the prefill has
//     had its share of the last step's time: none with share 0.
//   - After every step a prefill that waits gets a tile, so it ends after at most so many steps as
//     it has tiles, however busy the streams are.
//   - Nobody waits while the cores are free.
// Steps among themselves, and tiles, take turns in order of coming or, between processes, one after
// the other by chance.
//
// A thread that has a turn takes no second one. ComputeTurns is thread safe, a FileTurns is for one
// thread at a time.
#ifndef MASKKV_CORE_SCHEDULE_TURNS_H_
#define MASKKV_CORE_SCHEDULE_TURNS_H_

#include <cstdint>

#include "core/base/clock.h"

namespace maskkv::schedule {

enum class Side : std::uint8_t { kStep, kTile };

// How a turn came.
struct TurnWait {
  bool waited = false;  // the cores were not free
  Duration time{};      // 0 unless it waited
  // The wait was given up, whoever has the turn neither gives it back nor goes away: the caller
  // computes beside it.
  bool missed = false;
};

class Turns {
 public:
  virtual ~Turns() = default;

  // Blocks until the side's turn. A tile's turn goes on until GiveWay or End.
  virtual TurnWait Begin(Side side) = 0;
  // Between two tiles of a turn: if a step waits and this side has had its share, the turn goes to
  // it and this blocks until the next one; else it returns at once, waited = false.
  virtual TurnWait GiveWay() = 0;
  // REQUIRES: the caller's turn, of that side.
  virtual void End(Side side) = 0;
};

// A turn for a scope; nothing happens without a Turns.
class ScopedTurn {
 public:
  ScopedTurn(Turns* turns, Side side) : turns_(turns), side_(side) {
    if (turns_ != nullptr) wait_ = turns_->Begin(side);
  }
  ScopedTurn(const ScopedTurn&) = delete;
  ScopedTurn& operator=(const ScopedTurn&) = delete;
  ~ScopedTurn() {
    if (turns_ != nullptr) turns_->End(side_);
  }

  const TurnWait& wait() const { return wait_; }  // of the beginning

 private:
  Turns* const turns_;
  const Side side_;
  TurnWait wait_;
};

// Of a step's time, what prefill may take between it and the next one by default: streams keep at
// least two thirds of the machine but for the one tile.
inline constexpr double kPrefillShare = 0.5;

}  // namespace maskkv::schedule

#endif  // MASKKV_CORE_SCHEDULE_TURNS_H_
