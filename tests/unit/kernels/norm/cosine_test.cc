// SPDX-License-Identifier: Apache-2.0
#include "kernels/norm/cosine.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tests/support/seed.h"

namespace maskkv::kernels {
namespace {

using ::maskkv::testing::NormalValues;

TEST(CosineSimilarity, StaysWithinTheSummationErrorOfTheReference) {
  for (const std::int64_t n : {1, 2, 15, 16, 17, 259, 4096}) {
    const std::vector<float> a = NormalValues(n, 1);
    std::vector<float> b = NormalValues(n, 2);
    for (std::size_t i = 0; i < b.size(); ++i) b[i] = a[i] + 0.1F * b[i];
    // |a.b| <= |a| |b|, so the f64 errors of the sums are relative to 1.
    const double tolerance = (2.0 * static_cast<double>(n) + 8.0) * 0x1p-53;
    EXPECT_NEAR(CosineSimilarity(a.data(), b.data(), n), CosineSimilarityRef(a.data(), b.data(), n),
                tolerance)
        << "n " << n;
  }
}

TEST(CosineSimilarity, KnowsParallelOppositeAndOrthogonalVectors) {
  const std::vector<float> a = {3.0F, 4.0F, 0.0F};
  const std::vector<float> minus = {-6.0F, -8.0F, 0.0F};
  const std::vector<float> other = {0.0F, 0.0F, 2.0F};
  EXPECT_EQ(CosineSimilarity(a.data(), a.data(), 3), 1.0);
  EXPECT_EQ(CosineSimilarity(a.data(), minus.data(), 3), -1.0);
  EXPECT_EQ(CosineSimilarity(a.data(), other.data(), 3), 0.0);
}

TEST(CosineSimilarity, ZeroVectorsAreEqualToEachOtherAndUnrelatedToTheRest) {
  const std::vector<float> zero(33, 0.0F);
  const std::vector<float> a = NormalValues(33, 1);
  EXPECT_EQ(CosineSimilarity(zero.data(), zero.data(), 33), 1.0);
  EXPECT_EQ(CosineSimilarity(nullptr, nullptr, 0), 1.0);
  EXPECT_EQ(CosineSimilarity(zero.data(), a.data(), 33), 0.0);
  EXPECT_EQ(CosineSimilarity(a.data(), zero.data(), 33), 0.0);
}

TEST(CosineSimilarity, SurvivesSquaresBeyondF32AndStaysWithinOne) {
  for (const float scale : {1e-30F, 1e30F}) {
    const std::vector<float> a = NormalValues(100, 3, scale);
    EXPECT_NEAR(CosineSimilarity(a.data(), a.data(), 100), 1.0, 1e-15);
    EXPECT_LE(CosineSimilarity(a.data(), a.data(), 100), 1.0);
  }
}

TEST(CosineSimilarity, PropagatesNan) {
  std::vector<float> a = NormalValues(40, 4);
  const std::vector<float> b = NormalValues(40, 5);
  a[7] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(CosineSimilarity(a.data(), b.data(), 40)));
}

}  // namespace
}  // namespace maskkv::kernels
