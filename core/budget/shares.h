// SPDX-License-Identifier: Apache-2.0
//
// Which layer and head gets how much of the amount: layer weights and head rates, moved by what
// prefills report. Independent of the amount itself. A value. Not thread safe; times are arguments.
//
// Layers. A weight w_l shares out what lies above every layer's base:
//
//   k_l = k_base + (B - k_base) w_l,   sum of w = layers
//
// Start: the weights that equations 11 to 13 amount to, from importance I with boundary sum I_B
// (first and last layer) and middle sum I_M:
//
//   w = layers / 2 * I_B / (I_B + I_M) for the two,  layers / (layers - 2) * I_M / (I_B + I_M) for
//   the others;  1 for all if layers <= 2, if all importances are zero, or without any
//
// Let m_l be the running mean of layer l's kept mass, loss_l = 1 - m_l, and
// e_l = clamp(loss_l / mean loss - 1, -1, 1). Layers that would move past a bound (they are within
// bound_margin of it) have e = 0 and no part in the mean: what they cannot have is not asked of the
// others. A step, at most one every share_interval and after share_prefills new prefills:
//
//   w_l <- w_l (1 + weight_gain e_l)    where |e_l| > share_stop
//   then  w_l <- clamp(c w_l, start_l / share_range, start_l * share_range), c such that they sum
//   to layers again
//
// Heads. Let p_lh be the running mean of the head's preference and the target
// alpha * clamp(p_lh / mean of the layer's p, 1 / share_range, share_range), scaled within
// [alpha / share_range, min(1, alpha * share_range)] so that a layer's mean is alpha. A step:
//
//   rate <- rate + rate_gain (target - rate)
//
// Both rest until some error exceeds share_start (for rates: |target - rate| / alpha), then move
// until none exceeds share_stop; steps in which no weight changes by least_step are not taken. A
// layer's loss falls as its weight rises and a head's target does not depend on rates, so both
// settle (the simulation test).
//
// Running means are by count: weight n / (N + n) for n prefills, N capped at share_memory_prefills.
//
// Invariants: weights are empty or sum to layers, within bounds; rates are empty or within bounds.
#ifndef MASKKV_CORE_BUDGET_SHARES_H_
#define MASKKV_CORE_BUDGET_SHARES_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/base/clock.h"
#include "core/budget/tuning.h"

namespace maskkv::budget {

// The weights that reproduce equations 11 to 13, as above.
std::vector<double> StartWeights(std::span<const double> importance, std::int64_t layers);

// clamp(c * values) with the c that makes them sum to `total`. Returns: the scaled values.
// REQUIRES: same sizes; 0 <= low <= high; values > 0 where low < high; sum of low <= total <= sum
// of high (up to rounding).
std::vector<double> ScaleWithin(std::span<const double> values, std::span<const double> low,
                                std::span<const double> high, double total);

class Shares {
 public:
  // layers 0: nothing is ever moved. kv_heads 0: not known yet, taken from the first preferences.
  Shares(std::span<const double> importance, std::int64_t layers, std::int64_t kv_heads,
         const Tuning& tuning);

  // Whether arrays of these sizes may be observed: empty, or of this model.
  bool Fits(std::size_t layer_mass, std::size_t preference) const;

  // n >= 1 prefills' means. REQUIRES: they fit; values in [0, 1].
  void Observe(std::int64_t n, std::span<const double> layer_mass,
               std::span<const double> preference, TimePoint now);

  // Takes a step if one is due. Returns: whether weights or rates changed.
  bool Step(double alpha, TimePoint now);

  // What an earlier life had; each is dropped if it is no state of this model within the bounds.
  void Restore(std::span<const double> layer_weights, std::span<const double> head_rates,
               double alpha);
  // Back to the start: empty weights and rates; what was observed stays.
  void Reset();
  void ResetRates() { head_rates_.clear(); }

  const std::vector<double>& layer_weights() const {
    return layer_weights_;
  }                                                                      // or empty: the start's
  const std::vector<double>& head_rates() const { return head_rates_; }  // or empty: alpha
  const std::vector<double>& preference() const { return preference_; }  // running, or empty
  std::int64_t layers() const { return layers_; }
  std::int64_t kv_heads() const { return kv_heads_; }  // 0: not known

  void CheckInvariants(double alpha) const;

 private:
  // e of every layer, 0 for those at a bound.
  std::vector<double> WeightErrors(std::span<const double> weights) const;
  bool StepWeights();
  bool StepRates(double alpha);
  std::vector<double> RateTargets(double alpha) const;

  Tuning tuning_;
  std::int64_t layers_, kv_heads_;
  std::vector<double> start_, low_, high_;  // weights and their bounds
  std::vector<double> layer_weights_, head_rates_;
  std::vector<double> layer_mass_, preference_;  // running means
  double mass_prefills_ = 0, preference_prefills_ = 0;
  std::int64_t new_prefills_ = 0;  // since the last step
  bool weights_moving_ = false, rates_moving_ = false;
  std::optional<TimePoint> last_;  // step, or the first observation
};

}  // namespace maskkv::budget

#endif  // MASKKV_CORE_BUDGET_SHARES_H_
