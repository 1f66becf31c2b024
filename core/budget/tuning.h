// SPDX-License-Identifier: Apache-2.0
//
// The constants of the control law (docs/budget.md has the table with reasons). They are no flags:
// operators set limits and targets by Policy. Tests shorten times.
#ifndef MASKKV_CORE_BUDGET_TUNING_H_
#define MASKKV_CORE_BUDGET_TUNING_H_

#include <chrono>
#include <cstddef>
#include <cstdint>

#include "core/base/clock.h"

namespace maskkv::budget {

// Push down above `high`, free to rise below `low`, hold between.
struct Band {
  double low = 0;
  double high = 0;
  double Middle() const { return (low + high) / 2; }
};

struct Tuning {
  // Signals.
  Duration smoothing = std::chrono::seconds(20);  // time constant of pressure and queue
  Duration fresh_at_least = std::chrono::seconds(15);
  Duration fresh_at_most = std::chrono::seconds(60);
  double fresh_periods = 3;  // a reporter is fresh for so many of its periods
  double expiry_factor = 4;  // and forgotten after so many times that
  std::size_t max_reporters = 256;
  double eviction_weight = 0.1;  // of usage, for a cache that evicts without end
  double evictions_half = 1;     // evictions a second that give half of it
  double refusals_half = 0.1;    // refusals a second that count as half the arena
  double queue_seconds = 5;      // waits that make queue pressure 1
  double waiting_weight = 0.25;
  double waiting_half = 32;                // requests waiting that give half of it
  std::int64_t mass_prefills = 8;          // before kept mass counts, after a change of the amount
  std::int64_t mass_memory_prefills = 64;  // of its running average

  // Amount.
  Duration interval = std::chrono::seconds(10);       // between changes
  Duration reversal_wait = std::chrono::seconds(30);  // before an unhurried change of direction
  Duration reversal_longest = std::chrono::seconds(480);
  double up_factor = 1.25;  // most of one change
  double down_factor = 1.25;
  double up_gain = 0.25;   // exponents of (middle of the band / pressure): well below 1, because
  double down_gain = 0.5;  // pressure answers a step late
  Band memory{0.60, 0.85};
  Band queue{0.5, 1.0};
  double queue_floor = 0.5;  // of the operator's amount: the least that queueing alone may leave
  double mass_band = 0.02;   // on either side of the target
  double mass_gap = 0.1;     // below the target: a whole step up

  // Shares.
  Duration share_interval = std::chrono::seconds(60);
  std::int64_t share_prefills = 32;          // since the last change
  std::int64_t share_memory_prefills = 256;  // of the running averages
  double share_start = 0.25;                 // relative error that starts a movement
  double share_stop = 0.10;                  // and the one that ends it
  double weight_gain = 0.2;                  // of a step, times the relative error
  double rate_gain = 0.3;                    // of the way to the target, a step
  double least_step = 0.01;    // relative change of a weight that is worth a generation
  double bound_margin = 0.03;  // this near a bound is at it
  double share_range = 2;      // bounds: start / range to start * range
  double least_loss = 0.005;   // mean lost mass below which nothing is moved
};

}  // namespace maskkv::budget

#endif  // MASKKV_CORE_BUDGET_TUNING_H_
