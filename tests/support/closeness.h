// SPDX-License-Identifier: Apache-2.0
//
// Comparison with a derived tolerance: every element has its own bound, and a failure names the
// worst element with both values.
#ifndef MASKKV_TESTS_SUPPORT_CLOSENESS_H_
#define MASKKV_TESTS_SUPPORT_CLOSENESS_H_

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <span>

namespace maskkv::testing {

// |actual[i] - expected[i]| <= tolerance(i) for every i; not-a-number never passes. `expected` is
// float or double. The worst element is the one whose error is the largest multiple of its
// tolerance.
template <typename Expected, typename Tolerance>
::testing::AssertionResult AllWithin(std::span<const float> actual,
                                     std::span<const Expected> expected, Tolerance tolerance) {
  if (actual.size() != expected.size()) {
    return ::testing::AssertionFailure()
           << actual.size() << " values, expected " << expected.size();
  }
  std::size_t worst = 0;
  double worst_ratio = 0.0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double error =
        std::abs(static_cast<double>(actual[i]) - static_cast<double>(expected[i]));
    const double ratio = error == 0.0 ? 0.0 : error / tolerance(i);
    if (!(ratio <= worst_ratio)) {
      worst = i;
      worst_ratio = ratio;
      if (std::isnan(ratio)) break;
    }
  }
  if (worst_ratio <= 1.0) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure()
         << "element " << worst << " is " << actual[worst] << ", expected " << expected[worst]
         << ", error / tolerance = " << worst_ratio;
}

}  // namespace maskkv::testing

#endif  // MASKKV_TESTS_SUPPORT_CLOSENESS_H_
