// SPDX-License-Identifier: Apache-2.0
#include "core/schedule/compute_turns.h"

#include <algorithm>

#include "core/base/check.h"

namespace maskkv::schedule {

ComputeTurns::ComputeTurns(double prefill_share, const Clock& clock)
    : prefill_share_(prefill_share), clock_(clock), share_ends_(clock.Now()) {
  MASKKV_CHECK(prefill_share >= 0, "a share");
}

ComputeTurns::~ComputeTurns() {
  MASKKV_CHECK(!running_ && lines_[0].empty() && lines_[1].empty(), "turns that nobody uses");
}

std::optional<Side> ComputeTurns::Next() const {
  const bool steps = !line(Side::kStep).empty(), tiles = !line(Side::kTile).empty();
  if (!steps && !tiles) return std::nullopt;
  if (!steps || (tiles && tile_owed_)) return Side::kTile;
  return Side::kStep;
}

TurnWait ComputeTurns::Wait(std::unique_lock<std::mutex>& lock, Side side) {
  const std::uint64_t ticket = next_ticket_++;
  line(side).push_back(ticket);
  const auto mine = [&] { return !running_ && Next() == side && line(side).front() == ticket; };
  TurnWait wait;
  if (!mine()) {
    const TimePoint asked = clock_.Now();
    changed_.wait(lock, mine);
    wait = {.waited = true, .time = clock_.Now() - asked};
  }
  line(side).pop_front();
  running_ = side;
  if (side == Side::kTile) tile_owed_ = false;
  if (side == Side::kStep) step_began_ = clock_.Now();
  return wait;
}

void ComputeTurns::Finish(Side side) {
  MASKKV_CHECK(running_ == side, "the turn is the caller's");
  running_.reset();
  if (side == Side::kStep) {
    const TimePoint now = clock_.Now();
    tile_owed_ = true;
    share_ends_ = now + std::chrono::duration_cast<Duration>((now - step_began_) * prefill_share_);
  }
  changed_.notify_all();
}

TurnWait ComputeTurns::Begin(Side side) {
  std::unique_lock lock(mu_);
  return Wait(lock, side);
}

TurnWait ComputeTurns::GiveWay() {
  std::unique_lock lock(mu_);
  MASKKV_CHECK(running_ == Side::kTile, "a tile gives way");
  if (line(Side::kStep).empty() || clock_.Now() < share_ends_) return {};
  Finish(Side::kTile);
  return Wait(lock, Side::kTile);
}

void ComputeTurns::End(Side side) {
  const std::lock_guard lock(mu_);
  Finish(side);
}

std::int64_t ComputeTurns::waiting(Side side) const {
  const std::lock_guard lock(mu_);
  return static_cast<std::int64_t>(line(side).size());
}

void ComputeTurns::CheckInvariants() const {
  const std::lock_guard lock(mu_);
  for (const Line& line : lines_) {
    MASKKV_CHECK(std::ranges::is_sorted(line), "a line in the order of coming");
    MASKKV_CHECK(line.empty() || line.back() < next_ticket_, "tickets that were given");
  }
  MASKKV_CHECK(running_ != Side::kTile || !tile_owed_, "a tile that runs is owed no more");
  MASKKV_CHECK(share_ends_ >= step_began_ || running_ == Side::kStep, "a share behind its step");
}

}  // namespace maskkv::schedule
