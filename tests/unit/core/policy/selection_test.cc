// SPDX-License-Identifier: Apache-2.0
#include "core/policy/selection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>
#include <vector>

#include "tests/support/seed.h"
#include "tests/support/status_matchers.h"

namespace maskkv::policy::selection_test {
namespace {

using ::maskkv::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

TEST(SelectKept, KeepsTheHighestScoresInAscendingPosition) {
  EXPECT_THAT(*SelectKept(std::vector{0.1F, 0.9F, 0.2F, 0.8F}, 2), ElementsAre(1, 3));
  EXPECT_THAT(*SelectKept(std::vector{0.9F, 0.1F, 0.8F, 0.2F}, 3), ElementsAre(0, 2, 3));
}

TEST(SelectKept, TiesGoToTheLowerPosition) {
  EXPECT_THAT(*SelectKept(std::vector{0.5F, 0.7F, 0.5F, 0.5F}, 3), ElementsAre(0, 1, 2));
}

TEST(SelectKept, NothingAndEverything) {
  EXPECT_THAT(*SelectKept({}, 0), ElementsAre());
  EXPECT_THAT(*SelectKept(std::vector{0.5F, 0.7F}, 0), ElementsAre());
  EXPECT_THAT(*SelectKept(std::vector{0.5F, 0.7F}, 2), ElementsAre(0, 1));
}

TEST(SelectKept, ALargerBudgetKeepsASupersetAndNoLessMass) {
  std::mt19937_64 random(testing::Seed());
  for (int round = 0; round < 100; ++round) {
    std::vector<float> scores(1 + random() % 60);
    for (float& score : scores) score = static_cast<float>(random() % 12) / 8.0F;
    std::vector<std::int32_t> smaller;
    for (std::int64_t k = 1; k <= static_cast<std::int64_t>(scores.size()); ++k) {
      MASKKV_ASSERT_OK_AND_ASSIGN(const std::vector<std::int32_t> kept, SelectKept(scores, k));
      EXPECT_TRUE(std::ranges::includes(kept, smaller)) << "round " << round << ", k " << k;
      EXPECT_GE(KeptMass(scores, kept), KeptMass(scores, smaller));
      smaller = kept;
    }
  }
}

TEST(SelectKept, RefusesScoresThatAreNoAttention) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), -1.0F}) {
    EXPECT_THAT(SelectKept(std::vector{0.5F, bad, 0.5F}, 1),
                StatusIs(kInvalid, HasSubstr("scores: position 1")));
  }
}

TEST(SelectKept, RefusesABudgetOutsideThePrompt) {
  EXPECT_THAT(SelectKept(std::vector{0.5F}, 2),
              StatusIs(kInvalid, HasSubstr("k: expected an integer from 0 to 1, found 2")));
  EXPECT_THAT(SelectKept(std::vector{0.5F}, -1), StatusIs(kInvalid, HasSubstr("found -1")));
}

TEST(KeptMass, SumsTheKeptScores) {
  const std::vector<float> scores{0.25F, 4.0F, 0.5F};
  EXPECT_EQ(KeptMass(scores, std::vector<std::int32_t>{0, 2}), 0.75);
  EXPECT_EQ(KeptMass(scores, {}), 0.0);
}

}  // namespace
}  // namespace maskkv::policy::selection_test
