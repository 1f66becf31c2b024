// SPDX-License-Identifier: Apache-2.0
#include "kernels/select/top_k.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "tests/support/seed.h"

namespace maskkv::kernels {
namespace {

std::vector<std::int32_t> Select(const std::vector<float>& scores, std::int64_t k) {
  std::vector<std::int32_t> kept(static_cast<std::size_t>(k), -1);
  SelectTopK(scores, k, kept);
  return kept;
}

void ExpectEqualToTheTwin(const std::vector<float>& scores, std::int64_t k,
                          const std::string& what) {
  std::vector<std::int32_t> want(static_cast<std::size_t>(k));
  ref::SelectTopK(scores, k, want);
  EXPECT_EQ(Select(scores, k), want) << what << ", n " << scores.size() << ", k " << k;
}

void ExpectEqualForManyK(const std::vector<float>& scores, const std::string& what) {
  const auto n = static_cast<std::int64_t>(scores.size());
  for (const std::int64_t k :
       {std::int64_t{0}, std::int64_t{1}, std::int64_t{2}, n / 3, n / 2, n - 2, n - 1, n}) {
    if (k >= 0 && k <= n) ExpectEqualToTheTwin(scores, k, what);
  }
}

TEST(SelectTopK, EqualsTheStableSortOnRandomScores) {
  std::mt19937_64 random(maskkv::testing::Seed() + 1);
  std::lognormal_distribution<float> scores_like(0.0F, 3.0F);
  for (const std::size_t n : {1U, 2U, 3U, 15U, 16U, 17U, 100U, 255U, 256U, 1000U, 5000U}) {
    std::vector<float> scores(n);
    for (float& score : scores) score = scores_like(random);
    ExpectEqualForManyK(scores, "log-normal");
    for (float& score : scores) score = std::bit_cast<float>(static_cast<std::uint32_t>(random()));
    for (float& score : scores) score = std::isnan(score) ? 0.0F : score;
    ExpectEqualForManyK(scores, "any bits");
  }
}

TEST(SelectTopK, EqualsTheStableSortOnAdversarialScores) {
  constexpr std::size_t kN = 3000;
  std::mt19937_64 random(maskkv::testing::Seed() + 2);
  std::vector<float> scores(kN, 0.25F);
  ExpectEqualForManyK(scores, "all equal");
  for (std::size_t i = 0; i < kN; ++i) scores[i] = static_cast<float>(i);
  ExpectEqualForManyK(scores, "ascending");
  std::reverse(scores.begin(), scores.end());
  ExpectEqualForManyK(scores, "descending");
  for (std::size_t i = 0; i < kN; ++i) scores[i] = static_cast<float>(std::min(i, kN - i));
  ExpectEqualForManyK(scores, "organ pipe");
  for (float& score : scores) score = static_cast<float>(random() % 3);
  ExpectEqualForManyK(scores, "few distinct");
  for (float& score : scores) score = 1.0F + static_cast<float>(random() % 4) * 0x1p-23F;
  ExpectEqualForManyK(scores, "last bits");
  for (std::size_t i = 0; i < kN; ++i)
    scores[i] = std::ldexp(1.0F, static_cast<int>(i % 254) - 126);
  ExpectEqualForManyK(scores, "every exponent");
}

TEST(SelectTopK, BreaksTiesTowardsTheLowerPosition) {
  EXPECT_EQ(Select({1, 2, 2, 1, 2}, 2), (std::vector<std::int32_t>{1, 2}));
  EXPECT_EQ(Select({1, 2, 2, 1, 2}, 4), (std::vector<std::int32_t>{0, 1, 2, 4}));
}

TEST(SelectTopK, TakesNegativeZeroForZero) {
  EXPECT_EQ(Select({-0.0F, 0.0F, -0.0F}, 2), (std::vector<std::int32_t>{0, 1}));
  EXPECT_EQ(Select({0.0F, -0.0F, -1.0F, 0.0F}, 2), (std::vector<std::int32_t>{0, 1}));
}

TEST(SelectTopK, OrdersDenormalsAndInfinities) {
  const float inf = std::numeric_limits<float>::infinity();
  const float tiny = std::numeric_limits<float>::denorm_min();
  const std::vector<float> scores = {-inf, tiny, 0.0F, 2 * tiny, inf, -tiny, -inf};
  EXPECT_EQ(Select(scores, 1), (std::vector<std::int32_t>{4}));
  EXPECT_EQ(Select(scores, 2), (std::vector<std::int32_t>{3, 4}));
  EXPECT_EQ(Select(scores, 3), (std::vector<std::int32_t>{1, 3, 4}));
  EXPECT_EQ(Select(scores, 4), (std::vector<std::int32_t>{1, 2, 3, 4}));
  EXPECT_EQ(Select(scores, 5), (std::vector<std::int32_t>{1, 2, 3, 4, 5}));
  EXPECT_EQ(Select(scores, 6), (std::vector<std::int32_t>{0, 1, 2, 3, 4, 5}));
}

TEST(SelectTopK, KeepsASupersetForALargerK) {
  std::mt19937_64 random(maskkv::testing::Seed() + 3);
  std::vector<float> scores(400);
  for (float& score : scores) score = static_cast<float>(random() % 20);
  std::vector<std::int32_t> before;
  for (std::int64_t k = 0; k <= 400; ++k) {
    const std::vector<std::int32_t> kept = Select(scores, k);
    EXPECT_TRUE(std::includes(kept.begin(), kept.end(), before.begin(), before.end())) << k;
    before = kept;
  }
}

TEST(SelectTopK, AcceptsAnEmptyRange) { EXPECT_TRUE(Select({}, 0).empty()); }

TEST(SelectTopKDeathTest, RefusesAKThatDoesNotFit) {
  std::vector<std::int32_t> kept(2);
  const std::vector<float> scores = {1.0F};
  EXPECT_DEATH(SelectTopK(scores, 2, kept), "k outside");
  EXPECT_DEATH(SelectTopK(scores, 1, kept), "kept has another size");
}

TEST(AnyNan, FindsANanAtEveryPlace) {
  for (std::size_t n = 0; n < 70; ++n) {
    std::vector<float> values(n, std::numeric_limits<float>::infinity());
    EXPECT_FALSE(AnyNan(values));
    for (std::size_t i = 0; i < n; ++i) {
      values[i] = i % 2 == 0 ? std::nanf("") : -std::nanf("");
      EXPECT_TRUE(AnyNan(values)) << i << " of " << n;
      values[i] = 0.0F;
    }
  }
}

}  // namespace
}  // namespace maskkv::kernels
