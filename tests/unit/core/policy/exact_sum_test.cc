// SPDX-License-Identifier: Apache-2.0
#include "core/policy/exact_sum.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "tests/support/seed.h"

namespace maskkv::policy {
namespace {

TEST(ExactSum, NothingIsZero) { EXPECT_EQ(ExactSum({}), 0.0); }

TEST(ExactSum, IsRoundedOnceWhereALoopRoundsAtEveryTerm) {
  EXPECT_EQ(ExactSum(std::vector<double>(10, 0.1)), 1.0);
  double loop = 0;
  for (int i = 0; i < 10; ++i) loop += 0.1;
  EXPECT_NE(loop, 1.0);
}

TEST(ExactSum, KeepsTermsThatALoopLoses) {
  // 2^60 has units of 256: each 64 alone is lost, four of them are one unit.
  const double large = std::ldexp(1.0, 60);
  EXPECT_EQ(ExactSum(std::vector{large, 64.0, 64.0, 64.0, 64.0}), large + 256);
}

TEST(ExactSum, ATieOfTheTopIsDecidedByWhatLiesBelow) {
  const double half = std::ldexp(1.0, -53);  // half a unit of 1.0
  const double tiny = std::ldexp(1.0, -120);
  const double next = 1.0 + 2 * half;
  EXPECT_EQ(ExactSum(std::vector{1.0, half}), 1.0);  // a real tie: even
  EXPECT_EQ(ExactSum(std::vector{1.0, half, tiny}), next);
  EXPECT_EQ(ExactSum(std::vector{tiny, half, 1.0}), next);
  EXPECT_EQ(ExactSum(std::vector{next, half}), 1.0 + 4 * half);  // odd goes up
}

TEST(ExactSum, DenormalsAreSummedAndOverflowIsInfinite) {
  const double denormal = std::numeric_limits<double>::denorm_min();
  EXPECT_EQ(ExactSum(std::vector(5, denormal)), 5 * denormal);
  const double largest = std::numeric_limits<double>::max();
  EXPECT_EQ(ExactSum(std::vector{largest, largest}), std::numeric_limits<double>::infinity());
  EXPECT_EQ(ExactSum(std::vector{largest, 1.0}), largest);
}

TEST(ExactSum, EqualsTheIntegerSumOfMultiplesAndDoesNotDependOnTheOrder) {
  std::mt19937_64 random(testing::Seed());
  for (int round = 0; round < 300; ++round) {
    // Multiples of 2^-40 below 2^12, up to 2^9 of them: the sum has up to 61 bits.
    std::vector<double> values(1 + random() % 512);
    std::uint64_t integer = 0;
    for (double& value : values) {
      const std::uint64_t units = random() >> (12 + random() % 40);
      integer += units;
      value = std::ldexp(static_cast<double>(units), -40);
    }
    const double sum = ExactSum(values);
    EXPECT_EQ(sum, std::ldexp(static_cast<double>(integer), -40)) << "round " << round;
    std::shuffle(values.begin(), values.end(), random);
    EXPECT_EQ(ExactSum(values), sum) << "round " << round;
  }
}

}  // namespace
}  // namespace maskkv::policy
