// SPDX-License-Identifier: Apache-2.0
#include "kernels/activation/bias.h"

#include <gtest/gtest.h>

#include <vector>

#include "kernels/activation/add.h"
#include "tests/support/seed.h"

namespace maskkv::kernels {
namespace {

using ::maskkv::testing::NormalValues;

TEST(AddBias, IsTheSumRoundedOnceAndTouchesNoGap) {
  for (const std::int64_t width : {1, 5, 64, 77}) {
    const std::int64_t ld = width + 3;
    const std::vector<float> bias = NormalValues(width, 1);
    const std::vector<float> before = NormalValues(4 * ld, 2);
    std::vector<float> x = before;
    AddBias(bias.data(), 4, width, x.data(), ld);
    for (std::int64_t i = 0; i < 4 * ld; ++i) {
      const auto at = static_cast<std::size_t>(i);
      const std::int64_t column = i % ld;
      // Two f32 values sum exactly in f64 here, whose rounding to f32 is the sum rounded once.
      const double sum =
          column < width ? static_cast<double>(before[at]) + bias[static_cast<std::size_t>(column)]
                         : before[at];
      EXPECT_EQ(x[at], static_cast<float>(sum));
    }
  }
}

TEST(AddInto, IsTheSumRoundedOnce) {
  for (const std::int64_t count : {0, 1, 5, 64, 77}) {
    const std::vector<float> source = NormalValues(count, 1), before = NormalValues(count, 2);
    std::vector<float> target = before;
    AddInto(source.data(), count, target.data());
    for (std::size_t i = 0; i < target.size(); ++i) {
      EXPECT_EQ(target[i], static_cast<float>(static_cast<double>(before[i]) + source[i]));
    }
  }
}

TEST(AddBias, NothingToAddIsFine) {
  AddBias(nullptr, 3, 0, nullptr, 0);
  AddBias(nullptr, 0, 4, nullptr, 4);
}

}  // namespace
}  // namespace maskkv::kernels
