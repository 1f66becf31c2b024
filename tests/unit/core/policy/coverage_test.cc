// SPDX-License-Identifier: Apache-2.0
#include "core/policy/coverage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "core/policy/exact_sum.h"
#include "core/policy/layer_decision.h"
#include "tests/support/seed.h"
#include "tests/support/status_matchers.h"

namespace maskkv::policy::coverage_test {
namespace {

using ::maskkv::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr std::int64_t kHuge = std::numeric_limits<std::int64_t>::max();

using Scores = std::vector<float>;
using Kept = std::vector<std::vector<std::int32_t>>;

Kept Select(const Scores& scores, std::int64_t keys, std::int64_t prompt, double coverage,
            std::int64_t max_budget = 0) {
  auto kept = SelectByCoverage(scores, keys, prompt, coverage, max_budget);
  EXPECT_TRUE(kept.ok()) << kept.status();
  return kept.ok() ? *std::move(kept) : Kept{};
}

// Two heads over four prompt keys and a mask's: 8 and 5 on the prompt.
const Scores kTwo{4, 1, 1, 2, 9, 0.5, 0.25, 4, 0.25, 9};

TEST(Coverage, KeepsTheFewestPairsOfAllHeadsTogether) {
  EXPECT_THAT(Select(kTwo, 5, 4, 8.0 / 13), ElementsAre(ElementsAre(0), ElementsAre(2)));
  EXPECT_THAT(Select(kTwo, 5, 4, 0.7), ElementsAre(ElementsAre(0, 3), ElementsAre(2)));
  EXPECT_THAT(Select(kTwo, 5, 4, 0.8), ElementsAre(ElementsAre(0, 1, 3), ElementsAre(2)));
  EXPECT_THAT(Select(kTwo, 5, 4, 1), ElementsAre(ElementsAre(0, 1, 2, 3), ElementsAre(0, 1, 2, 3)));
}

TEST(Coverage, TiesGoToTheLowerHeadThenToTheLowerPosition) {
  EXPECT_THAT(Select(Scores(8, 1), 4, 4, 0.6),
              ElementsAre(ElementsAre(0, 1, 2, 3), ElementsAre(0)));
  EXPECT_THAT(Select(Scores(8, 1), 4, 4, 0.5), ElementsAre(ElementsAre(0, 1, 2), ElementsAre(0)));
}

TEST(Coverage, EveryHeadKeepsItsBestPair) {
  EXPECT_THAT(Select({100, 90, 0.5, 1}, 2, 2, 0.1), ElementsAre(ElementsAre(0), ElementsAre(1)));
  EXPECT_THAT(Select(Scores(6, 0), 3, 2, 0.9), ElementsAre(ElementsAre(0), ElementsAre(0)));
}

TEST(Coverage, PairsOfScoreZeroAreNotNeededForAllOfTheMass) {
  EXPECT_THAT(Select({2, 0, 0, 1, 0, 1}, 3, 3, 1), ElementsAre(ElementsAre(0), ElementsAre(0, 2)));
}

TEST(Coverage, TheBoundIsAMeanOverTheHeads) {
  EXPECT_THAT(Select(kTwo, 5, 4, 1, 2), ElementsAre(ElementsAre(0, 1, 3), ElementsAre(2)));
  EXPECT_THAT(Select(kTwo, 5, 4, 1, 1), ElementsAre(ElementsAre(0), ElementsAre(2)));
  EXPECT_EQ(Select(kTwo, 5, 4, 1, kHuge), Select(kTwo, 5, 4, 1));
}

TEST(Coverage, AnEmptyPromptKeepsNothing) {
  EXPECT_THAT(Select(kTwo, 5, 0, 0.9), ElementsAre(IsEmpty(), IsEmpty()));
}

TEST(Coverage, RefusesBadArgumentsByName) {
  for (const double bad : {0.0, -0.1, 1.0001, std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_THAT(SelectByCoverage(kTwo, 5, 4, bad, 0),
                StatusIs(kInvalid, HasSubstr("coverage: expected a number over 0 and at most 1")));
  }
  EXPECT_THAT(SelectByCoverage(kTwo, 5, 4, 0.5, -1), StatusIs(kInvalid, HasSubstr("max_budget")));
  EXPECT_THAT(SelectByCoverage(kTwo, 5, 6, 0.5, 0), StatusIs(kInvalid, HasSubstr("prompt_tokens")));
  EXPECT_THAT(SelectByCoverage(kTwo, 0, 0, 0.5, 0), StatusIs(kInvalid, HasSubstr("keys")));
  EXPECT_THAT(SelectByCoverage(kTwo, 4, 4, 0.5, 0), StatusIs(kInvalid, HasSubstr("scores")));
  Scores broken = kTwo;
  broken[7] = std::numeric_limits<float>::infinity();
  EXPECT_THAT(SelectByCoverage(broken, 5, 4, 0.5, 0),
              StatusIs(kInvalid, AllOf(HasSubstr("head 1"), HasSubstr("position 2"))));
}

// One draw: masses of many sizes, ties and zeros.
struct Draw {
  Scores scores;
  std::int64_t heads = 0, keys = 0, prompt = 0;

  double Mass(const Kept& kept) const {
    std::vector<double> values;
    for (std::size_t h = 0; h < kept.size(); ++h) {
      for (const std::int32_t j : kept[h]) {
        values.push_back(scores[h * static_cast<std::size_t>(keys) + static_cast<std::size_t>(j)]);
      }
    }
    return ExactSum(values);
  }
};

Draw RandomDraw(std::mt19937_64& random) {
  Draw draw;
  draw.heads = static_cast<std::int64_t>(1 + random() % 8);
  draw.prompt = static_cast<std::int64_t>(1 + random() % 60);
  draw.keys = draw.prompt + static_cast<std::int64_t>(random() % 5);
  const bool coarse = random() % 2 == 0;
  for (std::int64_t i = 0; i < draw.heads * draw.keys; ++i) {
    const double value = std::pow(10, std::uniform_real_distribution<double>(-6, 2)(random));
    draw.scores.push_back(static_cast<float>(coarse ? std::floor(value) : value));
  }
  return draw;
}

std::int64_t Pairs(const Kept& kept) {
  std::int64_t pairs = 0;
  for (const auto& head : kept) pairs += std::ssize(head);
  return pairs;
}

bool Includes(const Kept& larger, const Kept& smaller) {
  for (std::size_t h = 0; h < larger.size(); ++h) {
    if (!std::ranges::includes(larger[h], smaller[h])) return false;
  }
  return true;
}

TEST(Coverage, ReachesItsShareWithThePairsThatCountMostAndNotOneMore) {
  std::mt19937_64 random(testing::Seed());
  for (int round = 0; round < 1000; ++round) {
    SCOPED_TRACE(round);
    const Draw draw = RandomDraw(random);
    const double coverage = std::uniform_real_distribution<double>(0.01, 1)(random);
    const Kept all(static_cast<std::size_t>(draw.heads), [&] {
      std::vector<std::int32_t> rows(static_cast<std::size_t>(draw.prompt));
      for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<std::int32_t>(i);
      return rows;
    }());
    const double target = coverage * draw.Mass(all);
    Kept kept = Select(draw.scores, draw.keys, draw.prompt, coverage);
    EXPECT_GE(draw.Mass(kept), target);
    // No other set of so many pairs with one a head has more; without its least pair it falls
    // short.
    float least = std::numeric_limits<float>::infinity();
    std::pair<std::size_t, std::size_t> at;
    for (std::size_t h = 0; h < kept.size(); ++h) {
      ASSERT_FALSE(kept[h].empty());
      EXPECT_TRUE(std::ranges::is_sorted(kept[h]));
      if (kept[h].size() == 1) continue;
      for (std::size_t i = 0; i < kept[h].size(); ++i) {
        const auto j = static_cast<std::size_t>(kept[h][i]);
        const float score = draw.scores[h * static_cast<std::size_t>(draw.keys) + j];
        if (score < least) {
          least = score;
          at = {h, i};
        }
      }
    }
    if (Pairs(kept) == draw.heads) continue;
    kept[at.first].erase(kept[at.first].begin() + static_cast<std::ptrdiff_t>(at.second));
    EXPECT_LT(draw.Mass(kept), target);
  }
}

TEST(Coverage, MoreCoverageOrALargerBoundOnlyAdds) {
  std::mt19937_64 random(testing::Seed() + 1);
  for (int round = 0; round < 500; ++round) {
    SCOPED_TRACE(round);
    const Draw draw = RandomDraw(random);
    const double low = std::uniform_real_distribution<double>(0.01, 1)(random);
    const double high = std::uniform_real_distribution<double>(low, 1)(random);
    const auto bound = static_cast<std::int64_t>(1 + random() % 20);
    const Kept kept = Select(draw.scores, draw.keys, draw.prompt, low, bound);
    EXPECT_LE(Pairs(kept), bound * draw.heads);
    EXPECT_TRUE(Includes(Select(draw.scores, draw.keys, draw.prompt, high, bound), kept));
    EXPECT_TRUE(Includes(Select(draw.scores, draw.keys, draw.prompt, low, bound + 3), kept));
    EXPECT_TRUE(Includes(Select(draw.scores, draw.keys, draw.prompt, low), kept));
  }
}

TEST(Coverage, ADecisionReportsPreferencesAndMasses) {
  const auto decision = DecideLayerByCoverage(kTwo, 5, 4, 0.7, 0);
  ASSERT_TRUE(decision.ok()) << decision.status();
  EXPECT_THAT(decision->kept, ElementsAre(ElementsAre(0, 3), ElementsAre(2)));
  EXPECT_THAT(decision->kept_mass, ElementsAre(6, 4));
  EXPECT_THAT(decision->prompt_mass, ElementsAre(8, 5));
  EXPECT_THAT(decision->preference, ElementsAre(8.0 / 17, 5.0 / 14));
  EXPECT_THAT(DecideLayerByCoverage(kTwo, 5, 4, 0, 0), StatusIs(kInvalid, HasSubstr("coverage")));
}

}  // namespace
}  // namespace maskkv::policy::coverage_test
