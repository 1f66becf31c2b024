// SPDX-License-Identifier: Apache-2.0
#include "core/policy/adakv.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <tuple>

#include "core/policy/claims.h"
#include "tests/support/seed.h"
#include "tests/support/status_matchers.h"

namespace maskkv::policy {
namespace {

using ::maskkv::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Scores = std::vector<float>;
using Rows = std::vector<std::vector<std::int32_t>>;

TEST(AdaKv, HeadsGetWhatThePooledPairsSay) {
  // Two heads, five positions and a mask's key. k = 2: of the four best pairs head 0 has three.
  const Scores scores{9, 8, 7, 0, 0, 99, 6, 1, 1, 1, 1, 99};
  MASKKV_ASSERT_OK_AND_ASSIGN(const auto pairs, AdaKvHeadBudgets(scores, 6, 5, 2, 0));
  // Claims 0.4 + 2.4 and 0.4 + 0.8: 2.8 and 1.2.
  EXPECT_THAT(pairs, ElementsAre(3, 1));
  MASKKV_ASSERT_OK_AND_ASSIGN(const Rows kept, SelectPooled(scores, 6, 5, 2, 0));
  EXPECT_THAT(kept, ElementsAre(ElementsAre(0, 1, 2), ElementsAre(0)));
}

TEST(AdaKv, ForcedPositionsAreNotPooled) {
  // The last position is everybody's: two pairs more are pooled, both of head 0.
  const Scores scores{9, 8, 0, 5, 1, 1, 1, 99};
  MASKKV_ASSERT_OK_AND_ASSIGN(const auto pairs, AdaKvHeadBudgets(scores, 4, 4, 2, 1));
  EXPECT_THAT(pairs, ElementsAre(3, 1));  // claims 1.2 + 1.6 and 1.2
  MASKKV_ASSERT_OK_AND_ASSIGN(const Rows kept, SelectPooled(scores, 4, 4, 2, 1));
  EXPECT_THAT(kept, ElementsAre(ElementsAre(0, 1, 3), ElementsAre(3)));
  MASKKV_ASSERT_OK_AND_ASSIGN(const auto forced, AdaKvHeadBudgets(scores, 4, 4, 2, 2));
  EXPECT_THAT(forced, ElementsAre(2, 2));
}

TEST(AdaKv, TiesGoToTheLowerHeadThenToTheLowerPosition) {
  MASKKV_ASSERT_OK_AND_ASSIGN(const Rows kept, SelectPooled(Scores(9, 1), 3, 3, 1, 0));
  EXPECT_THAT(kept, ElementsAre(ElementsAre(0, 1, 2), ElementsAre(), ElementsAre()));
}

TEST(AdaKv, AnEmptyPromptKeepsNothing) {
  MASKKV_ASSERT_OK_AND_ASSIGN(const auto pairs, AdaKvHeadBudgets(Scores{5, 6}, 1, 0, 0, 0));
  EXPECT_THAT(pairs, ElementsAre(0, 0));
}

// Against a sort of all pairs, with few distinct scores.
TEST(AdaKv, IsTheSortOfAllPairs) {
  std::mt19937_64 random(testing::Seed());
  for (int round = 0; round < 500; ++round) {
    const auto heads = static_cast<std::int64_t>(1 + random() % 5);
    const auto prompt = static_cast<std::int64_t>(1 + random() % 20);
    const std::int64_t keys = prompt + static_cast<std::int64_t>(random() % 3);
    const auto k = static_cast<std::int64_t>(1 + random() % static_cast<std::uint64_t>(prompt));
    const auto forced = static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(k + 1));
    const std::uint64_t distinct = 1 + random() % 9;
    Scores scores(static_cast<std::size_t>(heads * keys));
    for (float& score : scores) score = static_cast<float>(random() % distinct);
    std::vector<std::tuple<float, std::int64_t, std::int64_t>> all;
    for (std::int64_t head = 0; head < heads; ++head) {
      for (std::int64_t j = 0; j < prompt - forced; ++j) {
        all.emplace_back(-scores[static_cast<std::size_t>(head * keys + j)], head, j);
      }
    }
    std::ranges::sort(all);
    all.resize(static_cast<std::size_t>(heads * (k - forced)));
    Rows expected(static_cast<std::size_t>(heads));
    for (const auto& [score, head, j] : all) {
      expected[static_cast<std::size_t>(head)].push_back(static_cast<std::int32_t>(j));
    }
    std::vector<double> claims;
    for (auto& rows : expected) {
      claims.push_back(static_cast<double>(forced) + 0.2 * static_cast<double>(k - forced) +
                       0.8 * static_cast<double>(rows.size()));
      std::ranges::sort(rows);
      for (std::int64_t j = prompt - forced; j < prompt; ++j) {
        rows.push_back(static_cast<std::int32_t>(j));
      }
    }
    MASKKV_ASSERT_OK_AND_ASSIGN(const Rows kept, SelectPooled(scores, keys, prompt, k, forced));
    EXPECT_EQ(kept, expected) << "round " << round;
    MASKKV_ASSERT_OK_AND_ASSIGN(const auto pairs,
                                AdaKvHeadBudgets(scores, keys, prompt, k, forced));
    EXPECT_EQ(std::accumulate(pairs.begin(), pairs.end(), std::int64_t{0}), heads * k);
    for (std::size_t head = 0; head < pairs.size(); ++head) {
      EXPECT_GE(pairs[head], std::max<std::int64_t>(1, forced));
      EXPECT_LE(pairs[head], prompt);
      // Nearest integers: a claim inside the bounds moves by less than one, unless others were cut.
      if (std::ranges::all_of(claims, [&](double x) {
            return x >= std::max(1.0, static_cast<double>(forced)) &&
                   x <= static_cast<double>(prompt);
          })) {
        EXPECT_LT(std::abs(static_cast<double>(pairs[head]) - claims[head]), 1 + 1e-9);
      }
    }
  }
}

TEST(AdaKv, RefusesWhatIsNoVote) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(AdaKvHeadBudgets(Scores{1, 2, 3, nan}, 2, 2, 1, 0),
              StatusIs(kInvalid, AllOf(HasSubstr("head 1"), HasSubstr("nan"))));
  EXPECT_THAT(SelectPooled(Scores{1, -1}, 2, 2, 1, 0), StatusIs(kInvalid, HasSubstr("head 0")));
  EXPECT_THAT(SelectPooled(Scores{1, 1, 1}, 2, 2, 1, 0), StatusIs(kInvalid, HasSubstr("scores")));
  EXPECT_THAT(SelectPooled(Scores{1, 1}, 2, 3, 1, 0),
              StatusIs(kInvalid, HasSubstr("prompt_tokens")));
  EXPECT_THAT(SelectPooled(Scores{1, 1}, 2, 2, 3, 0),
              StatusIs(kInvalid, HasSubstr("layer_budget")));
  EXPECT_THAT(SelectPooled(Scores{1, 1}, 2, 2, 1, 2), StatusIs(kInvalid, HasSubstr("forced")));
}

}  // namespace
}  // namespace maskkv::policy
