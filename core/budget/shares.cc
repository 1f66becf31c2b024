// SPDX-License-Identifier: Apache-2.0
#include "core/budget/shares.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>

#include "core/base/check.h"

namespace maskkv::budget {
namespace {

constexpr std::int64_t kBoundaryLayers = 2;
constexpr int kBisections = 200;
constexpr double kTolerance = 1e-7;  // of bounds and of sums, a layer

double Sum(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

// Folds the means of n prefills into running means over `prefills` of them.
void Fold(std::vector<double>& means, double& prefills, std::span<const double> seen,
          std::int64_t n, std::int64_t most) {
  if (seen.empty()) return;
  const auto count = static_cast<double>(n);
  const double weight = count / (prefills + count);
  means.resize(seen.size(), 0);
  for (std::size_t i = 0; i < seen.size(); ++i) {
    means[i] += weight * (std::min(seen[i], 1.0) - means[i]);
  }
  prefills = std::min(prefills + count, static_cast<double>(most));
}

// Whether to move, given the largest error: hysteresis between two thresholds.
bool Moving(bool moving, double largest, const Tuning& tuning) {
  return largest > (moving ? tuning.share_stop : tuning.share_start);
}

double RateLow(double alpha, const Tuning& tuning) { return alpha / tuning.share_range; }
double RateHigh(double alpha, const Tuning& tuning) {
  return std::min(1.0, alpha * tuning.share_range);
}

}  // namespace

std::vector<double> StartWeights(std::span<const double> importance, std::int64_t layers) {
  std::vector<double> weights(static_cast<std::size_t>(layers), 1.0);
  const double all = Sum(importance);
  if (layers <= kBoundaryLayers || importance.empty() || !(all > 0)) return weights;
  const double boundary = (importance.front() + importance.back()) / all;
  const auto count = static_cast<double>(layers);
  std::ranges::fill(weights, count / (count - kBoundaryLayers) * (1 - boundary));
  weights.front() = weights.back() = count / kBoundaryLayers * boundary;
  return weights;
}

std::vector<double> ScaleWithin(std::span<const double> values, std::span<const double> low,
                                std::span<const double> high, double total) {
  const auto scaled = [&](double log_c) {
    std::vector<double> result(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
      result[i] = std::clamp(std::exp(log_c) * values[i], low[i], high[i]);
    }
    return result;
  };
  // Far enough that every value is at its bound.
  double below = 0, above = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!(values[i] > 0) || !(low[i] > 0)) continue;
    below = std::min(below, std::log(low[i] / values[i]));
    above = std::max(above, std::log(high[i] / values[i]));
  }
  for (int i = 0; i < kBisections && below < above; ++i) {
    const double middle = below + (above - below) / 2;
    if (middle <= below || middle >= above) break;
    (Sum(scaled(middle)) < total ? below : above) = middle;
  }
  return scaled(below + (above - below) / 2);
}

Shares::Shares(std::span<const double> importance, std::int64_t layers, std::int64_t kv_heads,
               const Tuning& tuning)
    : tuning_(tuning),
      layers_(layers),
      kv_heads_(kv_heads),
      start_(StartWeights(importance, layers)) {
  for (const double weight : start_) {
    low_.push_back(weight / tuning.share_range);
    high_.push_back(weight * tuning.share_range);
  }
}

bool Shares::Fits(std::size_t layer_mass, std::size_t preference) const {
  const auto layers = static_cast<std::size_t>(layers_);
  if (layers == 0) return true;
  if (layer_mass != 0 && layer_mass != layers) return false;
  if (kv_heads_ == 0) return preference % layers == 0;
  return preference == 0 || preference == layers * static_cast<std::size_t>(kv_heads_);
}

void Shares::Observe(std::int64_t n, std::span<const double> layer_mass,
                     std::span<const double> preference, TimePoint now) {
  MASKKV_CHECK(n >= 1 && Fits(layer_mass.size(), preference.size()), "what is observed fits");
  if (layers_ == 0 || (layer_mass.empty() && preference.empty())) return;
  if (kv_heads_ == 0) kv_heads_ = static_cast<std::int64_t>(preference.size()) / layers_;
  Fold(layer_mass_, mass_prefills_, layer_mass, n, tuning_.share_memory_prefills);
  Fold(preference_, preference_prefills_, preference, n, tuning_.share_memory_prefills);
  new_prefills_ = std::min(new_prefills_ + n, tuning_.share_prefills);
  if (!last_) last_ = now;
}

bool Shares::Step(double alpha, TimePoint now) {
  if (!last_ || now - *last_ < tuning_.share_interval) return false;
  if (new_prefills_ < tuning_.share_prefills) return false;
  const bool weights = StepWeights();
  const bool rates = StepRates(alpha);
  if (!weights && !rates) return false;
  last_ = now;
  new_prefills_ = 0;
  // What was kept under the old weights fades quickly; preferences do not depend on them.
  if (weights)
    mass_prefills_ = std::min(mass_prefills_, static_cast<double>(tuning_.share_prefills) / 4);
  return true;
}

std::vector<double> Shares::WeightErrors(std::span<const double> weights) const {
  std::vector<double> errors(weights.size(), 0);
  std::vector<bool> free(weights.size(), true);
  for (bool again = true; again;) {
    again = false;
    double mean = 0, count = 0;
    for (std::size_t i = 0; i < free.size(); ++i) {
      if (free[i]) mean += ((1 - layer_mass_[i]) - mean) / ++count;
    }
    for (std::size_t i = 0; i < free.size(); ++i) {
      if (!free[i]) continue;
      const double loss = 1 - layer_mass_[i];
      const bool at_bound = loss > mean ? weights[i] >= high_[i] * (1 - tuning_.bound_margin)
                                        : weights[i] <= low_[i] * (1 + tuning_.bound_margin);
      errors[i] =
          at_bound || mean < tuning_.least_loss ? 0 : std::clamp(loss / mean - 1, -1.0, 1.0);
      free[i] = !at_bound;
      again = again || at_bound;
    }
  }
  return errors;
}

bool Shares::StepWeights() {
  if (layer_mass_.empty()) return false;
  const std::vector<double>& weights = layer_weights_.empty() ? start_ : layer_weights_;
  const std::vector<double> errors = WeightErrors(weights);
  std::vector<double> moved = weights;
  double largest = 0;
  for (std::size_t i = 0; i < moved.size(); ++i) {
    largest = std::max(largest, std::abs(errors[i]));
    if (std::abs(errors[i]) > tuning_.share_stop) moved[i] *= 1 + tuning_.weight_gain * errors[i];
  }
  weights_moving_ = Moving(weights_moving_, largest, tuning_);
  if (!weights_moving_) return false;
  moved = ScaleWithin(moved, low_, high_, static_cast<double>(layers_));
  double relative = 0;
  for (std::size_t i = 0; i < moved.size(); ++i) {
    if (weights[i] > 0) relative = std::max(relative, std::abs(moved[i] / weights[i] - 1));
  }
  if (relative < tuning_.least_step) return false;
  layer_weights_ = std::move(moved);
  return true;
}

std::vector<double> Shares::RateTargets(double alpha) const {
  const auto heads = static_cast<std::size_t>(kv_heads_);
  const std::vector<double> low(heads, RateLow(alpha, tuning_));
  const std::vector<double> high(heads, RateHigh(alpha, tuning_));
  std::vector<double> targets;
  for (std::size_t layer = 0; layer < static_cast<std::size_t>(layers_); ++layer) {
    const std::span<const double> preference = std::span(preference_).subspan(layer * heads, heads);
    const double mean = Sum(preference) / static_cast<double>(heads);
    std::vector<double> wanted(heads, alpha);
    for (std::size_t head = 0; mean > 0 && head < heads; ++head) {
      wanted[head] =
          alpha * std::clamp(preference[head] / mean, 1 / tuning_.share_range, tuning_.share_range);
    }
    wanted = ScaleWithin(wanted, low, high, alpha * static_cast<double>(heads));
    targets.insert(targets.end(), wanted.begin(), wanted.end());
  }
  return targets;
}

bool Shares::StepRates(double alpha) {
  if (preference_.empty() || !(alpha > 0)) return false;
  const std::vector<double> targets = RateTargets(alpha);
  const auto rate = [&](std::size_t i) { return head_rates_.empty() ? alpha : head_rates_[i]; };
  double largest = 0;
  for (std::size_t i = 0; i < targets.size(); ++i) {
    largest = std::max(largest, std::abs(targets[i] - rate(i)) / alpha);
  }
  rates_moving_ = Moving(rates_moving_, largest, tuning_);
  if (!rates_moving_) return false;
  std::vector<double> moved(targets.size());
  for (std::size_t i = 0; i < targets.size(); ++i) {
    moved[i] = std::clamp(rate(i) + tuning_.rate_gain * (targets[i] - rate(i)),
                          RateLow(alpha, tuning_), RateHigh(alpha, tuning_));
  }
  head_rates_ = std::move(moved);
  return true;
}

void Shares::Restore(std::span<const double> layer_weights, std::span<const double> head_rates,
                     double alpha) {
  bool weights_fit = layers_ > 0 && layer_weights.size() == start_.size() &&
                     std::abs(Sum(layer_weights) - static_cast<double>(layers_)) <=
                         kTolerance * static_cast<double>(layers_);
  for (std::size_t i = 0; weights_fit && i < start_.size(); ++i) {
    weights_fit = layer_weights[i] >= low_[i] && layer_weights[i] <= high_[i];
  }
  if (weights_fit) layer_weights_.assign(layer_weights.begin(), layer_weights.end());
  const auto layers = static_cast<std::size_t>(layers_);
  bool rates_fit =
      layers > 0 && !head_rates.empty() && head_rates.size() % layers == 0 &&
      (kv_heads_ == 0 || head_rates.size() == layers * static_cast<std::size_t>(kv_heads_));
  for (const double rate : head_rates) {
    rates_fit = rates_fit && rate >= RateLow(alpha, tuning_) && rate <= RateHigh(alpha, tuning_);
  }
  if (!rates_fit) return;
  head_rates_.assign(head_rates.begin(), head_rates.end());
  kv_heads_ = static_cast<std::int64_t>(head_rates.size() / layers);
}

void Shares::Reset() {
  layer_weights_.clear();
  head_rates_.clear();
  weights_moving_ = rates_moving_ = false;
}

void Shares::CheckInvariants(double alpha) const {
  if (!layer_weights_.empty()) {
    MASKKV_CHECK(layer_weights_.size() == start_.size(), "one weight a layer");
    MASKKV_CHECK(std::abs(Sum(layer_weights_) - static_cast<double>(layers_)) <=
                     kTolerance * static_cast<double>(layers_),
                 "weights sum to layers");
  }
  for (std::size_t i = 0; i < layer_weights_.size(); ++i) {
    MASKKV_CHECK(layer_weights_[i] >= low_[i] && layer_weights_[i] <= high_[i],
                 "weights in bounds");
  }
  MASKKV_CHECK(
      head_rates_.empty() || head_rates_.size() == static_cast<std::size_t>(layers_ * kv_heads_),
      "one rate a head");
  for (const double rate : head_rates_) {
    MASKKV_CHECK(rate >= RateLow(alpha, tuning_) && rate <= RateHigh(alpha, tuning_),
                 "rates in bounds");
  }
  for (const double mass : layer_mass_) MASKKV_CHECK(mass >= 0 && mass <= 1, "mass is a share");
  for (const double share : preference_) MASKKV_CHECK(share >= 0 && share <= 1, "preference too");
}

}  // namespace maskkv::budget
