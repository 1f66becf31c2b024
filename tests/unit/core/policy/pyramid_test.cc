// SPDX-License-Identifier: Apache-2.0
#include "core/policy/pyramid.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "tests/support/seed.h"
#include "tests/support/status_matchers.h"

namespace maskkv::policy {
namespace {

using ::maskkv::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Integers = std::vector<std::int64_t>;

Integers Pyramid(std::int64_t layers, std::int64_t budget, std::int64_t prompt) {
  const auto budgets = PyramidLayerBudgets(layers, budget, prompt);
  EXPECT_TRUE(budgets.ok()) << budgets.status();
  return budgets.ok() ? *budgets : Integers{};
}

TEST(Pyramid, FallsFromTheFirstLayerToTheLast) {
  // B = 20: from 39 to 1 in steps of 12.67: 39, 26.33, 13.67, 1.
  EXPECT_THAT(Pyramid(4, 20, 1000), ElementsAre(39, 26, 14, 1));
  // B = 40: from 78 to 2.
  EXPECT_THAT(Pyramid(2, 40, 1000), ElementsAre(78, 2));
}

TEST(Pyramid, ALayerKeepsAtLeastOneAndAtMostThePrompt) {
  // B = 4: 7.8, 4, 0.2.
  EXPECT_THAT(Pyramid(3, 4, 1000), ElementsAre(7, 4, 1));
  // B = 20 of 25: 39 is cut to 25, what is left goes to the others, one each at a time.
  const Integers budgets = Pyramid(4, 20, 25);
  EXPECT_EQ(std::accumulate(budgets.begin(), budgets.end(), std::int64_t{0}), 80);
  EXPECT_EQ(budgets.front(), 25);
  EXPECT_THAT(Pyramid(3, 1, 1), ElementsAre(1, 1, 1));
}

TEST(Pyramid, OneLayerAllOfThePromptAndNone) {
  EXPECT_THAT(Pyramid(1, 7, 100), ElementsAre(7));
  EXPECT_THAT(Pyramid(3, 100, 100), ElementsAre(100, 100, 100));
  EXPECT_THAT(Pyramid(2, std::numeric_limits<std::int64_t>::max(), 9), ElementsAre(9, 9));
  EXPECT_THAT(Pyramid(2, 5, 0), ElementsAre(0, 0));
}

TEST(Pyramid, TotalsAreExactAndLayersDescend) {
  std::mt19937_64 random(testing::Seed());
  for (int round = 0; round < 500; ++round) {
    const auto layers = static_cast<std::int64_t>(1 + random() % 90);
    const auto prompt = static_cast<std::int64_t>(1 + random() % 400);
    const auto budget = static_cast<std::int64_t>(1 + random() % 300);
    const Integers budgets = Pyramid(layers, budget, prompt);
    EXPECT_EQ(std::accumulate(budgets.begin(), budgets.end(), std::int64_t{0}),
              layers * std::min(budget, prompt));
    EXPECT_GE(std::ranges::min(budgets), 1);
    EXPECT_LE(std::ranges::max(budgets), prompt);
    // Whole pairs may swap neighbours by one, never more.
    for (std::size_t l = 1; l < budgets.size(); ++l) EXPECT_LE(budgets[l], budgets[l - 1] + 1);
  }
}

TEST(Pyramid, RefusesWhatIsNoBudget) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(PyramidLayerBudgets(0, 1, 1), StatusIs(kInvalid, HasSubstr("layers")));
  EXPECT_THAT(PyramidLayerBudgets(2, 0, 1), StatusIs(kInvalid, HasSubstr("budget")));
  EXPECT_THAT(PyramidLayerBudgets(2, 1, -1), StatusIs(kInvalid, HasSubstr("prompt_tokens")));
}

}  // namespace
}  // namespace maskkv::policy
