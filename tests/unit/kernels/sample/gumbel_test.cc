// SPDX-License-Identifier: Apache-2.0
#include "kernels/sample/gumbel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/base/elementary.h"
#include "kernels/sample/philox.h"
#include "tests/support/closeness.h"
#include "tests/support/seed.h"

namespace maskkv::kernels {
namespace {

using ::maskkv::testing::AllWithin;
using ::maskkv::testing::Seed;

TEST(GumbelNoise, IsWithinItsErrorForEveryUniformNumberThereIs) {
  double worst = 0.0;
  float worst_at = 0.0F;
  float lowest = 0.0F;
  float highest = 0.0F;
  for (std::uint32_t step = 0; step < (1U << 23); ++step) {
    const float u = UniformFromBits(step << 9);
    const float g = -Log(-Log(u));
    const double error = std::abs(g + std::log(-std::log(static_cast<double>(u))));
    if (error > worst) {
      worst = error;
      worst_at = u;
    }
    lowest = std::min(lowest, g);
    highest = std::max(highest, g);
  }
  EXPECT_LE(worst, 0x1p-20) << "at u = " << worst_at;
  EXPECT_GE(lowest, -2.82F);
  EXPECT_LE(highest, 16.64F);
}

TEST(GumbelNoise, EqualsTheReferenceForAnyFirstIdAndLength) {
  for (const std::int32_t first : {0, 1, 2, 3, 4, 63, 126463}) {
    for (const std::size_t count : {std::size_t{0}, std::size_t{1}, std::size_t{3}, std::size_t{64},
                                    std::size_t{65}, std::size_t{300}}) {
      std::vector<float> noise(count);
      std::vector<float> expected(count);
      GumbelNoise(Seed(), 17, 5, first, noise);
      GumbelNoiseRef(Seed(), 17, 5, first, expected);
      EXPECT_TRUE(AllWithin<float>(noise, expected, [](std::size_t) { return 0x1.8p-20; }))
          << "first " << first << " count " << count;
    }
  }
}

TEST(GumbelNoise, AnIdsNoiseDoesNotDependOnTheRangeItIsAskedIn) {
  std::vector<float> whole(1000);
  GumbelNoise(9, 1, 2, 0, whole);
  for (const std::int32_t first : {1, 5, 130, 999}) {
    std::vector<float> part(std::min<std::size_t>(77, 1000 - static_cast<std::size_t>(first)));
    GumbelNoise(9, 1, 2, first, part);
    EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + first)) << "first " << first;
  }
}

// Frequencies of arg-max(logit + T g) against softmax(logits / T).
TEST(GumbelNoise, SamplesTheSoftmax) {
  const std::vector<double> logits = {0.0, 1.0, -1.0, 2.0, 0.5, 0.0, -3.0, 1.5};
  const double temperature = 0.7;
  const int draws = 40000;
  std::vector<double> expected(logits.size());
  double total = 0.0;
  for (std::size_t i = 0; i < logits.size(); ++i)
    total += expected[i] = std::exp(logits[i] / temperature);
  std::vector<int> counts(logits.size());
  for (int draw = 0; draw < draws; ++draw) {
    std::vector<float> noise(logits.size());
    GumbelNoise(Seed(), static_cast<std::uint32_t>(draw), 0, 0, noise);
    std::vector<double> scores(logits.size());
    for (std::size_t i = 0; i < scores.size(); ++i) scores[i] = logits[i] + temperature * noise[i];
    ++counts[static_cast<std::size_t>(std::ranges::max_element(scores) - scores.begin())];
  }
  double chi_square = 0.0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const double mean = draws * expected[i] / total;
    chi_square += (counts[i] - mean) * (counts[i] - mean) / mean;
  }
  // 7 degrees of freedom: exceeded by one seed in 100,000.
  EXPECT_LT(chi_square, 35.3);
}

}  // namespace
}  // namespace maskkv::kernels
