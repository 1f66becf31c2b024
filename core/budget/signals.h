// SPDX-License-Identifier: Apache-2.0
//
// What all reporters said, as the three numbers that the loop on the amount reads. A value (copies
// are independent). Not thread safe; times are arguments.
//
// A reporter is a name and a kind of observation. Over its period p, with a = 1 - exp(-p /
// smoothing):
//
//   usage     u <- u + a (leased / capacity - u)          the first observation is taken as it is
//   refusals  r <- r + a (n / (n + refusals_half) - r),   n = refused / p, from 0; evictions e
//   likewise waits     q <- q + a (queue_seconds - q),  w likewise with waiting; the first taken as
//   it is
//
//   memory pressure = f (u + r + eviction_weight e)
//   queue pressure  = f (q / queue_seconds + waiting_weight w / (w + waiting_half))
//
// each the largest over its reporters. Leased bytes, not allocated ones: what nobody leases can be
// evicted and is no pressure. f falls with the reporter's silence: 1 while it is fresh
// (fresh_periods of its own periods, within bounds), then linearly to 0, where it is forgotten. So
// nobody's last word holds the loop for ever.
//
// Kept mass is one running mean over prefills since the last change of the amount (MassOutdated):
// what was kept under another B says nothing about this one. Of a report that covers time before
// the change only the part after it counts.
//
// Invariants: every number is finite and >= 0; at most max_reporters.
#ifndef MASKKV_CORE_BUDGET_SIGNALS_H_
#define MASKKV_CORE_BUDGET_SIGNALS_H_

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "core/base/clock.h"
#include "core/budget/observation.h"
#include "core/budget/tuning.h"

namespace maskkv::budget {

struct LoopInput {
  double memory = 0;          // pressure; 0 if no cache manager is heard
  bool memory_fresh = false;  // a cache manager reported lately: room to grow is known
  double queue = 0;
  bool prefill_heard = false;  // a prefill is not forgotten
  std::optional<double> mass;  // kept, once enough prefills told
};

class Signals {
 public:
  explicit Signals(const Tuning& tuning) : tuning_(tuning) {}

  // REQUIRES: Validate(observation) is OK.
  // Errors: RESOURCE_EXHAUSTED (TOO_MANY_REPORTERS) for a new one when all others are heard.
  absl::Status Observe(const Observation& observation, TimePoint now);

  // The amount changes now: kept mass is gathered anew.
  void MassOutdated(TimePoint now);

  // Forgets who has been silent for too long.
  void Expire(TimePoint now);

  LoopInput At(TimePoint now) const;
  std::size_t reporters() const { return reporters_.size(); }

  void CheckInvariants() const;

 private:
  // The index of the observation's kind, and the name.
  using Key = std::pair<std::size_t, std::string>;

  struct Reporter {
    TimePoint last;
    Duration fresh{};
    double usage = 0, refusals = 0, evictions = 0;  // cache; the two in 0 .. 1
    double queue_seconds = 0, waiting = 0;          // prefill, decode
  };

  double Freshness(const Reporter& reporter, TimePoint now) const;
  void ObserveMass(const PrefillObservation& seen, double period_seconds, TimePoint now);

  Tuning tuning_;
  std::map<Key, Reporter> reporters_;
  double mass_ = 0, mass_prefills_ = 0;
  TimePoint mass_since_;
};

}  // namespace maskkv::budget

#endif  // MASKKV_CORE_BUDGET_SIGNALS_H_
