// SPDX-License-Identifier: Apache-2.0
#include "core/policy/window.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>
#include <utility>

#include "tests/support/seed.h"
#include "tests/support/status_matchers.h"

namespace maskkv::policy {
namespace {

using ::maskkv::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using Scores = std::vector<float>;
using Rows = std::vector<std::int32_t>;

TEST(Window, IsHalfTheBudgetFrom1To32AndNoMoreThanThePrompt) {
  EXPECT_EQ(WindowSize(1, 100), 1);
  EXPECT_EQ(WindowSize(3, 100), 1);
  EXPECT_EQ(WindowSize(17, 100), 8);
  EXPECT_EQ(WindowSize(64, 100), 32);
  EXPECT_EQ(WindowSize(std::numeric_limits<std::int64_t>::max(), 100), 32);
  EXPECT_EQ(WindowSize(64, 5), 5);
  EXPECT_EQ(WindowSize(64, 0), 0);
}

TEST(Window, IsKeptBesidesTheBestOfTheOthers) {
  const Scores scores{3, 9, 1, 9, 0, 0};
  MASKKV_ASSERT_OK_AND_ASSIGN(const Rows four, SelectWithWindow(scores, 4, 2));
  EXPECT_THAT(four, ElementsAre(1, 3, 4, 5));
  MASKKV_ASSERT_OK_AND_ASSIGN(const Rows three, SelectWithWindow(scores, 3, 2));
  EXPECT_THAT(three, ElementsAre(1, 4, 5));  // of equals the lower position
  MASKKV_ASSERT_OK_AND_ASSIGN(const Rows one, SelectWithWindow(scores, 1, 2));
  EXPECT_THAT(one, ElementsAre(5));
  MASKKV_ASSERT_OK_AND_ASSIGN(const Rows none, SelectWithWindow(Scores{}, 0, 0));
  EXPECT_THAT(none, IsEmpty());
}

TEST(Window, IsASortOfTheOthers) {
  std::mt19937_64 random(testing::Seed());
  for (int round = 0; round < 500; ++round) {
    const std::size_t n = 1 + random() % 40;
    const std::size_t k = random() % (n + 1);
    const std::size_t w = random() % (n + 1);
    Scores scores(n);
    for (float& score : scores) score = static_cast<float>(random() % 5);
    const std::size_t forced = std::min(w, k);
    std::vector<std::pair<float, std::int32_t>> others;
    for (std::size_t j = 0; j < n - forced; ++j) {
      others.emplace_back(-scores[j], static_cast<std::int32_t>(j));
    }
    std::ranges::sort(others);
    Rows expected;
    for (std::size_t i = 0; i < k - forced; ++i) expected.push_back(others[i].second);
    for (std::size_t j = n - forced; j < n; ++j) expected.push_back(static_cast<std::int32_t>(j));
    std::ranges::sort(expected);
    MASKKV_ASSERT_OK_AND_ASSIGN(
        const Rows kept,
        SelectWithWindow(scores, static_cast<std::int64_t>(k), static_cast<std::int64_t>(w)));
    EXPECT_EQ(kept, expected) << "round " << round;
  }
}

TEST(Window, RefusesWhatDoesNotFit) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(SelectWithWindow(Scores{1, 2}, 3, 0), StatusIs(kInvalid, HasSubstr("k")));
  EXPECT_THAT(SelectWithWindow(Scores{1, 2}, 1, 3), StatusIs(kInvalid, HasSubstr("window")));
  // In the window too, although nobody compares it.
  EXPECT_THAT(SelectWithWindow(Scores{1, nan}, 1, 1), StatusIs(kInvalid, HasSubstr("position 1")));
}

}  // namespace
}  // namespace maskkv::policy
