// SPDX-License-Identifier: Apache-2.0
#include "core/budget/amount_loop.h"

#include <algorithm>
#include <cmath>

#include "core/base/check.h"

namespace maskkv::budget {
namespace {

constexpr double kLeastMassStep = 0.25;  // of a whole step up

}  // namespace

std::int64_t AmountAtRest(const Policy& policy) {
  return policy.coverage > 0 ? policy.max_budget : policy.budget;
}

double AmountLoop::RoomToGrow(const LoopInput& input) const {
  double factor = tuning_.up_factor;
  const auto toward = [&](const Band& band, double pressure) {
    if (pressure > 0)
      factor = std::min(factor, std::pow(band.Middle() / pressure, tuning_.up_gain));
  };
  toward(tuning_.memory, input.memory);
  toward(tuning_.queue, input.queue);
  return factor;
}

std::optional<AmountLoop::Wish> AmountLoop::Decide(std::int64_t amount, const Policy& policy,
                                                   const LoopInput& input) const {
  const std::int64_t rest = AmountAtRest(policy);
  const auto queue_floor =
      static_cast<std::int64_t>(std::ceil(static_cast<double>(rest) * tuning_.queue_floor));
  const bool memory_full = input.memory > tuning_.memory.high;
  const bool queue_full = input.queue > tuning_.queue.high && amount > queue_floor;
  if (memory_full || queue_full) {
    const auto away = [&](const Band& band, double pressure) {
      return std::pow(band.Middle() / pressure, tuning_.down_gain);
    };
    const double by_memory = memory_full ? away(tuning_.memory, input.memory) : 1;
    const double by_queue = queue_full ? away(tuning_.queue, input.queue) : 1;
    return Wish{.factor = std::max(std::min(by_memory, by_queue), 1 / tuning_.down_factor),
                .cause = by_memory <= by_queue ? "pressure" : "queue",
                .hurried = true,
                .bound = memory_full ? std::nullopt : std::optional(queue_floor)};
  }
  const bool more_than_wanted = input.mass && *input.mass > policy.target_mass + tuning_.mass_band;
  if (amount > rest && (more_than_wanted || !input.prefill_heard || !input.memory_fresh)) {
    return Wish{.factor = 1 / tuning_.up_factor, .cause = "rest", .hurried = false, .bound = rest};
  }
  if (input.memory > tuning_.memory.low || input.queue > tuning_.queue.low) return std::nullopt;
  const double room = RoomToGrow(input);
  if (amount < rest) return Wish{.factor = room, .cause = "rest", .hurried = false, .bound = rest};
  if (input.memory_fresh && input.mass && *input.mass < policy.target_mass - tuning_.mass_band) {
    const double gap = (policy.target_mass - *input.mass) / tuning_.mass_gap;
    const double factor = 1 + (tuning_.up_factor - 1) * std::clamp(gap, kLeastMassStep, 1.0);
    return Wish{
        .factor = std::min(factor, room), .cause = "mass", .hurried = false, .bound = std::nullopt};
  }
  return std::nullopt;
}

bool AmountLoop::MayReverse(const Wish& wish, int direction, TimePoint now) const {
  return wish.hurried || direction_ == 0 || direction == direction_ || now - *last_ >= patience_;
}

void AmountLoop::Taken(int direction, TimePoint now) {
  const bool quiet = !last_ || now - *last_ > 2 * patience_;
  if (quiet) {
    patience_ = tuning_.reversal_wait;
  } else if (direction_ != 0 && direction != direction_) {
    patience_ = std::min(2 * patience_, tuning_.reversal_longest);
  }
  last_ = now;
  direction_ = direction;
}

std::optional<AmountLoop::Step> AmountLoop::Next(std::int64_t amount, const Policy& policy,
                                                 const LoopInput& input, TimePoint now) {
  if (last_ && now - *last_ < tuning_.interval) return std::nullopt;
  const std::optional<Wish> wish = Decide(amount, policy, input);
  if (!wish || wish->factor == 1) return std::nullopt;
  const int direction = wish->factor > 1 ? 1 : -1;
  if (!MayReverse(*wish, direction, now)) return std::nullopt;
  // Toward the old amount, so that the factor's bound holds, but at least one pair.
  const double exact = static_cast<double>(amount) * wish->factor;
  std::int64_t next = direction > 0
                          ? std::max(static_cast<std::int64_t>(exact), amount + 1)
                          : std::min(static_cast<std::int64_t>(std::ceil(exact)), amount - 1);
  if (wish->bound) {
    next = direction > 0 ? std::min(next, *wish->bound) : std::max(next, *wish->bound);
  }
  next = std::clamp(next, policy.min_budget, policy.max_budget);
  if (next == amount) return std::nullopt;
  Taken(direction, now);
  return Step{next, wish->cause};
}

void AmountLoop::Restart(TimePoint now) {
  last_ = now;
  direction_ = 0;
  patience_ = tuning_.reversal_wait;
}

void AmountLoop::CheckInvariants() const {
  MASKKV_CHECK(patience_ >= tuning_.reversal_wait && patience_ <= tuning_.reversal_longest,
               "patience is bounded");
  MASKKV_CHECK(direction_ == 0 || last_.has_value(), "a direction comes from a step");
}

}  // namespace maskkv::budget
