// SPDX-License-Identifier: Apache-2.0
#include "core/policy/pair_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <random>
#include <tuple>
#include <vector>

#include "tests/support/seed.h"
#include "tests/support/status_matchers.h"

namespace maskkv::policy {
namespace {

using ::maskkv::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using Scores = std::vector<float>;

TEST(PairPool, RanksAllLayersAndHeadsTogether) {
  PairPool pool(2, 3);
  // Two prompt keys and a mask's, which counts for nothing.
  ASSERT_TRUE(pool.AddLayer(Scores{5, 1, 99, 2, 4, 99}, 3, 2).ok());
  EXPECT_THAT(pool.Kept(0, 0), ElementsAre(0));
  EXPECT_THAT(pool.Kept(0, 1), ElementsAre(0, 1));
  ASSERT_TRUE(pool.AddLayer(Scores{3, 6, 99, 1, 0, 99}, 3, 2).ok());
  EXPECT_THAT(pool.Kept(0, 0), ElementsAre(0));
  EXPECT_THAT(pool.Kept(0, 1), ElementsAre(1));
  EXPECT_THAT(pool.Kept(1, 0), ElementsAre(1));
  EXPECT_THAT(pool.Kept(1, 1), IsEmpty());
}

TEST(PairPool, TiesGoToTheLowerLayerHeadAndPosition) {
  PairPool pool(2, 5);
  ASSERT_TRUE(pool.AddLayer(Scores(4, 1), 2, 2).ok());
  ASSERT_TRUE(pool.AddLayer(Scores(4, 1), 2, 2).ok());
  ASSERT_TRUE(pool.AddLayer(Scores(4, 1), 2, 2).ok());
  EXPECT_THAT(pool.Kept(0, 0), ElementsAre(0, 1));
  EXPECT_THAT(pool.Kept(0, 1), ElementsAre(0, 1));
  EXPECT_THAT(pool.Kept(1, 0), ElementsAre(0));
  EXPECT_THAT(pool.Kept(1, 1), IsEmpty());
  EXPECT_THAT(pool.Kept(2, 0), IsEmpty());
}

TEST(PairPool, HoldsEverythingThatFits) {
  PairPool pool(1, 100);
  ASSERT_TRUE(pool.AddLayer(Scores{0, 0, 0}, 3, 3).ok());
  EXPECT_THAT(pool.Kept(0, 0), ElementsAre(0, 1, 2));
  PairPool none(1, 0);
  ASSERT_TRUE(none.AddLayer(Scores{1, 2, 3}, 3, 3).ok());
  EXPECT_THAT(none.Kept(0, 0), IsEmpty());
  PairPool promptless(1, 4);
  ASSERT_TRUE(promptless.AddLayer(Scores{7}, 1, 0).ok());
  EXPECT_THAT(promptless.Kept(0, 0), IsEmpty());
}

// Against a sort of everything, with few distinct scores so that ties abound.
TEST(PairPool, IsTheSortOfAllPairs) {
  std::mt19937_64 random(testing::Seed());
  for (int round = 0; round < 200; ++round) {
    const auto layers = static_cast<std::int64_t>(1 + random() % 5);
    const auto heads = static_cast<std::int64_t>(1 + random() % 4);
    const auto prompt = static_cast<std::int64_t>(random() % 12);
    const std::int64_t keys = prompt + 1;
    const auto capacity = static_cast<std::int64_t>(
        random() % static_cast<std::uint64_t>(layers * heads * prompt + 2));
    const std::uint64_t distinct = 1 + random() % 6;
    PairPool pool(heads, capacity);
    std::vector<std::tuple<float, std::int64_t, std::int64_t, std::int64_t>> all;
    for (std::int64_t layer = 0; layer < layers; ++layer) {
      Scores scores(static_cast<std::size_t>(heads * keys));
      for (float& score : scores) score = static_cast<float>(random() % distinct);
      for (std::int64_t head = 0; head < heads; ++head) {
        for (std::int64_t j = 0; j < prompt; ++j) {
          all.emplace_back(-scores[static_cast<std::size_t>(head * keys + j)], layer, head, j);
        }
      }
      ASSERT_TRUE(pool.AddLayer(scores, keys, prompt).ok());
      pool.CheckInvariants();
      auto best = all;
      std::sort(best.begin(), best.end());
      best.resize(std::min(best.size(), static_cast<std::size_t>(capacity)));
      std::vector<std::vector<std::int32_t>> expected(
          static_cast<std::size_t>((layer + 1) * heads));
      for (const auto& [score, l, h, j] : best) {
        expected[static_cast<std::size_t>(l * heads + h)].push_back(static_cast<std::int32_t>(j));
      }
      for (std::int64_t unit = 0; unit < (layer + 1) * heads; ++unit) {
        auto& positions = expected[static_cast<std::size_t>(unit)];
        std::sort(positions.begin(), positions.end());
        EXPECT_EQ(pool.Kept(unit / heads, unit % heads), positions)
            << "round " << round << " layer " << layer << " unit " << unit;
      }
    }
  }
}

TEST(PairPool, RefusesScoresThatAreNoVotes) {
  PairPool pool(2, 3);
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(pool.AddLayer(Scores{1, 2, 3, nan}, 2, 2),
              StatusIs(kInvalid, AllOf(HasSubstr("head 1"), HasSubstr("nan"))));
  EXPECT_THAT(pool.AddLayer(Scores{1, -2, 3, 4}, 2, 2), StatusIs(kInvalid, HasSubstr("head 0")));
  EXPECT_THAT(pool.AddLayer(Scores{1, 2, 3}, 2, 2), StatusIs(kInvalid, HasSubstr("scores")));
  EXPECT_THAT(pool.AddLayer(Scores{1, 2, 3, 4}, 2, 3),
              StatusIs(kInvalid, HasSubstr("prompt_tokens")));
  EXPECT_EQ(pool.layers(), 0);
  EXPECT_EQ(pool.pairs(), 0);
}

}  // namespace
}  // namespace maskkv::policy
