// SPDX-License-Identifier: Apache-2.0
#include "core/policy/exact_sum.h"

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

namespace maskkv::policy {
namespace {

struct TwoSum {
  double rounded;
  double error;  // rounded + error is the real sum
};

// REQUIRES: |larger| >= |smaller|.
TwoSum AddExactly(double larger, double smaller) {
  const double rounded = larger + smaller;
  return {rounded, smaller - (rounded - larger)};
}

// The double nearest to the sum of `partials`, which ascend in magnitude and share no bits.
double RoundOnce(const std::vector<double>& partials) {
  if (partials.empty()) return 0;
  std::size_t i = partials.size() - 1;
  double high = partials[i];
  double low = 0;
  while (i > 0) {
    const TwoSum sum = AddExactly(high, partials[--i]);
    high = sum.rounded;
    low = sum.error;
    if (low != 0) break;
  }
  // `low` may be exactly half a unit of `high`, rounded to even: what lies below it decides.
  if (i > 0 && low != 0 && std::signbit(low) == std::signbit(partials[i - 1])) {
    const double doubled = low * 2;
    const double away = high + doubled;
    if (away - high == doubled) high = away;
  }
  return high;
}

}  // namespace

void ExactAccumulator::Add(double value) {
  if (overflowed_) return;
  std::size_t used = 0;
  for (double partial : partials_) {
    if (std::abs(value) < std::abs(partial)) std::swap(value, partial);
    const TwoSum sum = AddExactly(value, partial);
    if (sum.error != 0) partials_[used++] = sum.error;
    value = sum.rounded;
  }
  overflowed_ = !std::isfinite(value);
  partials_.resize(used);
  if (value != 0) partials_.push_back(value);
}

double ExactAccumulator::Rounded() const {
  return overflowed_ ? std::numeric_limits<double>::infinity() : RoundOnce(partials_);
}

double ExactSum(std::span<const double> values) {
  ExactAccumulator sum;
  for (const double value : values) sum.Add(value);
  return sum.Rounded();
}

}  // namespace maskkv::policy
