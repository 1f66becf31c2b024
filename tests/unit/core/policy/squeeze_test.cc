// SPDX-License-Identifier: Apache-2.0
#include "core/policy/squeeze.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <random>

#include "tests/support/seed.h"
#include "tests/support/status_matchers.h"

namespace maskkv::policy {
namespace {

using ::maskkv::testing::StatusIs;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using Integers = std::vector<std::int64_t>;
using Reals = std::vector<double>;

Integers Squeeze(const Reals& importance, std::int64_t budget, std::int64_t prompt) {
  const auto budgets = SqueezeLayerBudgets(importance, budget, prompt);
  EXPECT_TRUE(budgets.ok()) << budgets.status();
  return budgets.ok() ? *budgets : Integers{};
}

// A sum of fractions, exact: numerators over 27720, the least common multiple of 1 to 12.
constexpr std::int64_t kMultiple = 27720;

// 27720 times the summed squares of values [begin, end) of `sorted` to their mean.
std::int64_t Squares(const Integers& sorted, std::size_t begin, std::size_t end) {
  std::int64_t sum = 0, squares = 0;
  for (std::size_t i = begin; i < end; ++i) {
    sum += sorted[i];
    squares += sorted[i] * sorted[i];
  }
  const auto n = static_cast<std::int64_t>(end - begin);
  return kMultiple / n * (n * squares - sum * sum);
}

// Every pair of borders between distinct values, in integers.
std::vector<int> ByBruteForce(const Integers& values) {
  Integers sorted = values;
  std::ranges::sort(sorted);
  std::vector<std::size_t> borders;  // where another value begins
  for (std::size_t i = 1; i < sorted.size(); ++i) {
    if (sorted[i] != sorted[i - 1]) borders.push_back(i);
  }
  std::map<std::int64_t, int> cluster;
  std::int64_t first = std::numeric_limits<std::int64_t>::max(), second = first;
  if (borders.size() == 1) first = sorted[borders[0]];
  std::int64_t least = std::numeric_limits<std::int64_t>::max();
  for (std::size_t a = 0; a < borders.size(); ++a) {
    for (std::size_t b = a + 1; b < borders.size(); ++b) {
      const std::int64_t all = Squares(sorted, 0, borders[a]) +
                               Squares(sorted, borders[a], borders[b]) +
                               Squares(sorted, borders[b], sorted.size());
      if (all >= least) continue;
      least = all;
      first = sorted[borders[a]];
      second = sorted[borders[b]];
    }
  }
  std::vector<int> clusters;
  for (const std::int64_t v : values) clusters.push_back((v >= first ? 1 : 0) + (v >= second));
  return clusters;
}

TEST(ClusterValues, AreThePartitionOfLeastSquares) {
  EXPECT_THAT(ClusterValues(Reals{9, 1, 1.5, 5, 9.5, 5.25}), ElementsAre(2, 0, 0, 1, 2, 1));
}

TEST(ClusterValues, FewDistinctValuesAreAClusterEach) {
  EXPECT_THAT(ClusterValues(Reals{}), IsEmpty());
  EXPECT_THAT(ClusterValues(Reals{3}), ElementsAre(0));
  EXPECT_THAT(ClusterValues(Reals{3, 3, 3}), ElementsAre(0, 0, 0));
  EXPECT_THAT(ClusterValues(Reals{3, 2, 3}), ElementsAre(1, 0, 1));
  EXPECT_THAT(ClusterValues(Reals{3, 2, 3, 7}), ElementsAre(1, 0, 1, 2));
}

TEST(ClusterValues, TiesGoToTheBordersThatComeFirst) {
  // 0 | 1 | 2 3, 0 | 1 2 | 3 and 0 1 | 2 | 3 all have the squares 1/2.
  EXPECT_THAT(ClusterValues(Reals{0, 1, 2, 3}), ElementsAre(0, 1, 2, 2));
}

// Small integers, so that ties abound and the other side is exact.
TEST(ClusterValues, AreTheBestOfAllPartitions) {
  std::mt19937_64 random(testing::Seed());
  for (int round = 0; round < 3000; ++round) {
    const std::size_t n = 1 + random() % 12;
    const std::uint64_t range = 1 + random() % 40;
    Integers integers;
    Reals reals;
    for (std::size_t i = 0; i < n; ++i) {
      integers.push_back(static_cast<std::int64_t>(random() % range));
      reals.push_back(static_cast<double>(integers.back()) / 64 - 0.25);
    }
    EXPECT_EQ(ClusterValues(reals), ByBruteForce(integers)) << "round " << round;
  }
}

TEST(Squeeze, TheMostSimilarLayersGiveTheirBudgetUp) {
  // Similarities 0.5, 0.9, 0.91, 0.7: layers 1 and 2 keep 0.4 B, the others B + 0.6 B 2 / 2.
  EXPECT_THAT(Squeeze({0.5, 0.1, 0.09, 0.3}, 10, 1000), ElementsAre(16, 4, 4, 16));
  // B = 1: claims 0.4 and 1.6, and a layer keeps at least one.
  EXPECT_THAT(Squeeze({0.5, 0.1, 0.09, 0.3}, 1, 1000), ElementsAre(1, 1, 1, 1));
}

TEST(Squeeze, WithoutADifferenceItIsUniform) {
  EXPECT_THAT(Squeeze({0.2, 0.2, 0.2}, 10, 1000), ElementsAre(10, 10, 10));
  EXPECT_THAT(Squeeze({0.2}, 10, 1000), ElementsAre(10));
  EXPECT_THAT(Squeeze({0.2, 0.4}, 10, 10), ElementsAre(10, 10));
  EXPECT_THAT(Squeeze({0.2, 0.4}, 10, 0), ElementsAre(0, 0));
}

TEST(Squeeze, TotalsAreExactWithinFloorAndCap) {
  std::mt19937_64 random(testing::Seed());
  for (int round = 0; round < 500; ++round) {
    Reals importance(1 + random() % 40);
    const std::uint64_t distinct = 1 + random() % 50;
    for (double& i : importance) i = static_cast<double>(random() % distinct) / 64;
    const auto layers = std::ssize(importance);
    const auto prompt = static_cast<std::int64_t>(1 + random() % 200);
    const auto budget = static_cast<std::int64_t>(1 + random() % 200);
    const Integers budgets = Squeeze(importance, budget, prompt);
    EXPECT_EQ(std::accumulate(budgets.begin(), budgets.end(), std::int64_t{0}),
              layers * std::min(budget, prompt));
    EXPECT_THAT(budgets, Each(AllOf(::testing::Ge(1), ::testing::Le(prompt))));
  }
}

TEST(Squeeze, RefusesWhatIsNoImportance) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(SqueezeLayerBudgets(Reals{0.1, nan}, 4, 10),
              StatusIs(kInvalid, HasSubstr("layer 1")));
  EXPECT_THAT(SqueezeLayerBudgets(Reals{}, 4, 10), StatusIs(kInvalid, HasSubstr("importance")));
  EXPECT_THAT(SqueezeLayerBudgets(Reals{0.1}, 0, 10), StatusIs(kInvalid, HasSubstr("budget")));
}

}  // namespace
}  // namespace maskkv::policy
