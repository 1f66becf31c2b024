// SPDX-License-Identifier: Apache-2.0
//
// Running error analysis: numbers that carry what an f32 computation of them may be off by. The
// value is computed in f64; every operation adds the error of its inputs, to first order, and the
// rounding of its result. Errors within a sum of products count as independent of each other
// (Higham and Mary 2019: lambda sqrt(n) in the place of n), because the worst case would grow by
// the 1-norm of every matrix and bound nothing after two of them.
#ifndef MASKKV_TESTS_UNIT_CORE_TRANSFORMER_BOUNDED_H_
#define MASKKV_TESTS_UNIT_CORE_TRANSFORMER_BOUNDED_H_

#include <cmath>
#include <cstddef>
#include <span>

namespace maskkv::transformer {

struct Bounded {
  static constexpr double kUnit = 0x1p-24;  // of f32 rounding

  double value = 0;
  double error = 0;
};

inline Bounded Rounded(double value, double error) {
  return {value, error + Bounded::kUnit * std::abs(value)};
}

inline Bounded operator+(Bounded a, Bounded b) {
  return Rounded(a.value + b.value, a.error + b.error);
}

inline double ProductError(Bounded a, Bounded b) {
  return std::abs(a.value) * b.error + std::abs(b.value) * a.error + a.error * b.error;
}

inline Bounded operator*(Bounded a, Bounded b) {
  return Rounded(a.value * b.value, ProductError(a, b));
}

inline Bounded operator/(Bounded a, Bounded b) {
  const double value = a.value / b.value;
  return Rounded(value, (a.error + std::abs(value) * b.error) / (std::abs(b.value) - b.error));
}

// The exponential of kernels/base/elementary.h is within 2 units in the last place, 4 roundings.
inline Bounded Exp(Bounded a) {
  const double value = std::exp(a.value);
  return {value, value * (std::expm1(a.error) + 4 * Bounded::kUnit)};
}

inline Bounded Sqrt(Bounded a) {
  const double value = std::sqrt(a.value);
  return Rounded(value, a.error / (2 * std::sqrt(a.value - a.error)));
}

// The sum of products in any order; lambda = 4, which a sum exceeds with a probability of at most
// 2 exp(-8).
inline Bounded Dot(std::span<const Bounded> a, std::span<const Bounded> b) {
  Bounded sum;
  double squares = 0, magnitude = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    sum.value += a[i].value * b[i].value;
    const double error = ProductError(a[i], b[i]);
    squares += error * error;
    magnitude += std::abs(a[i].value * b[i].value);
  }
  const double additions = 4 * std::sqrt(static_cast<double>(a.size() + 2)) * Bounded::kUnit;
  sum.error = std::sqrt(squares) + additions * magnitude;
  return sum;
}

}  // namespace maskkv::transformer

#endif  // MASKKV_TESTS_UNIT_CORE_TRANSFORMER_BOUNDED_H_
