// SPDX-License-Identifier: Apache-2.0
//
// The sum of doubles, rounded once: the double nearest to the real sum (ties to even), whatever the
// order of the terms. Budgets are floors of quotients of such sums, so a sum that depended on the
// order of heads would let two heads change places and a third one lose a pair. Python's math.fsum
// returns the same bits. J. R. Shewchuk, "Adaptive Precision Floating-Point Arithmetic and Fast
// Robust Geometric Predicates" (1997). Pure, thread safe.
#ifndef MASKKV_CORE_POLICY_EXACT_SUM_H_
#define MASKKV_CORE_POLICY_EXACT_SUM_H_

#include <span>
#include <vector>

namespace maskkv::policy {

// The sum of the values added so far. Not thread safe.
class ExactAccumulator {
 public:
  // REQUIRES: value is finite and >= 0.
  void Add(double value);

  // +infinity if the sum is past the largest double.
  double Rounded() const;

 private:
  std::vector<double> partials_;  // ascend in magnitude, share no bits; their sum is the real one
  bool overflowed_ = false;
};

// values (n), any order; an empty span gives 0. Returns +infinity if the sum is past the largest
// double. REQUIRES: every value is finite and >= 0.
double ExactSum(std::span<const double> values);

}  // namespace maskkv::policy

#endif  // MASKKV_CORE_POLICY_EXACT_SUM_H_
