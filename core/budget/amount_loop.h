// SPDX-License-Identifier: Apache-2.0
//
// The closed loop on one number, the default B (under a coverage policy: the most pairs that
// coverage may take), between the operator's limits. A value. Not thread safe; times are arguments.
//
// M and Q are memory and queue pressure, `mass` the kept share (signals.h), R the operator's
// amount. The first line that holds decides the step B -> B f, at most one every `interval`:
//
//   1. M > memory.high          f = (memory.Middle() / M) ^ down_gain    cause "pressure"
//      Q > queue.high           f = (queue.Middle() / Q) ^ down_gain     cause "queue"
//                               the smaller f of both; f >= 1 / down_factor; Q alone not below
//                               queue_floor R: waiting has causes that B does not cure
//   2. B > R, and mass > target + mass_band, or no prefill is heard, or no cache manager
//                               f = 1 / up_factor, not below R     cause "rest"
//   3. M > memory.low or Q > queue.low                             no step
//   4. B < R                    f = up_factor, not above R         cause "rest"
//   5. mass < target - mass_band, and a cache manager is heard
//                               f = 1 + (up_factor - 1) min(1, (target - mass) / mass_gap), at
//                               least a quarter of the way         cause "mass"
//
// A step up slows down on its way to the band, whose middle it would reach if pressure were
// proportional to B: f <= (memory.Middle() / M) ^ up_gain, and by Q likewise. Amounts are integers,
// a step is at least 1, and within min_budget .. max_budget always.
//
// Against hunting: a step in the other direction than the last one, unless it is of line 1, waits
// until `patience` has passed since the last step. Patience doubles with every reversal, line 1's
// too, from reversal_wait to reversal_longest, and is reset by twice its length without a step. So
// reversals cannot come faster than two every reversal_longest for long, whatever the plant does.
#ifndef MASKKV_CORE_BUDGET_AMOUNT_LOOP_H_
#define MASKKV_CORE_BUDGET_AMOUNT_LOOP_H_

#include <cstdint>
#include <optional>
#include <string_view>

#include "core/base/clock.h"
#include "core/budget/plan.h"
#include "core/budget/signals.h"
#include "core/budget/tuning.h"

namespace maskkv::budget {

// The operator's amount: what the loop rests at without signals.
std::int64_t AmountAtRest(const Policy& policy);

class AmountLoop {
 public:
  struct Step {
    std::int64_t amount = 0;
    std::string_view cause;  // a literal
  };

  explicit AmountLoop(const Tuning& tuning) : tuning_(tuning), patience_(tuning.reversal_wait) {}

  // The step that is due, if any; it is taken. REQUIRES: `amount` is within the policy's limits.
  std::optional<Step> Next(std::int64_t amount, const Policy& policy, const LoopInput& input,
                           TimePoint now);

  // The amount was set by somebody else: the interval starts anew, the direction is forgotten.
  void Restart(TimePoint now);

  void CheckInvariants() const;

 private:
  struct Wish {
    double factor = 1;
    std::string_view cause;
    bool hurried = false;
    // Where a step ends at most.
    std::optional<std::int64_t> bound;
  };

  std::optional<Wish> Decide(std::int64_t amount, const Policy& policy,
                             const LoopInput& input) const;
  double RoomToGrow(const LoopInput& input) const;
  bool MayReverse(const Wish& wish, int direction, TimePoint now) const;
  void Taken(int direction, TimePoint now);

  Tuning tuning_;
  std::optional<TimePoint> last_;  // step
  int direction_ = 0;              // of the last step
  Duration patience_;
};

}  // namespace maskkv::budget

#endif  // MASKKV_CORE_BUDGET_AMOUNT_LOOP_H_
