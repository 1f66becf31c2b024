// SPDX-License-Identifier: Apache-2.0
#include "core/policy/importance.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "tests/support/seed.h"
#include "tests/support/status_matchers.h"

namespace maskkv::policy::importance_test {
namespace {

using ::maskkv::testing::IsOk;
using ::maskkv::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Reals = std::vector<double>;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

TEST(ImportanceAccumulator, IsTheMeanOverSamplesWhateverTheirLength) {
  ImportanceAccumulator sum(2);
  ASSERT_THAT(sum.Add(Reals{0.5, 0.25}, 1000), IsOk());
  ASSERT_THAT(sum.Add(Reals{1.0, 0.0}, 10), IsOk());
  sum.CheckInvariants();
  EXPECT_THAT(sum.Mean(), ElementsAre(0.75, 0.125));
  EXPECT_EQ(sum.samples(), 2);
  EXPECT_EQ(sum.tokens(), 1010);
}

TEST(ImportanceAccumulator, StartsAtZero) {
  const ImportanceAccumulator sum(3);
  sum.CheckInvariants();
  EXPECT_THAT(sum.Mean(), ElementsAre(0, 0, 0));
}

TEST(ImportanceAccumulator, ARefusedSampleIsNotCounted) {
  ImportanceAccumulator sum(2);
  ASSERT_THAT(sum.Add(Reals{0.5, 0.5}, 7), IsOk());
  EXPECT_THAT(sum.Add(Reals{0.5}, 7),
              StatusIs(kInvalid, HasSubstr("importance: expected 2 layers, found 1")));
  EXPECT_THAT(sum.Add(Reals{0.5, -0.1}, 7), StatusIs(kInvalid, HasSubstr("layer 1")));
  EXPECT_THAT(sum.Add(Reals{2.5, 0.1}, 7), StatusIs(kInvalid, HasSubstr("from 0 to 2")));
  EXPECT_THAT(sum.Add(Reals{std::numeric_limits<double>::quiet_NaN(), 0.1}, 7),
              StatusIs(kInvalid, HasSubstr("layer 0")));
  EXPECT_THAT(sum.Add(Reals{0.5, 0.5}, 0), StatusIs(kInvalid, HasSubstr("tokens")));
  EXPECT_THAT(sum.Add(Reals{0.5, 0.5}, std::numeric_limits<std::int64_t>::max()),
              StatusIs(kInvalid, HasSubstr("tokens")));
  sum.CheckInvariants();
  EXPECT_EQ(sum.samples(), 1);
  EXPECT_EQ(sum.tokens(), 7);
}

TEST(ImportanceAccumulator, DoesNotDependOnTheOrderOfSamples) {
  std::mt19937_64 random(testing::Seed());
  std::vector<Reals> samples(50, Reals(4));
  for (Reals& sample : samples) {
    for (double& value : sample) value = std::uniform_real_distribution<double>(0, 2)(random);
  }
  Reals first;
  for (int round = 0; round < 20; ++round) {
    ImportanceAccumulator sum(4);
    for (const Reals& sample : samples) {
      ASSERT_THAT(sum.Add(sample, 1), IsOk());
      sum.CheckInvariants();
    }
    if (round == 0) first = sum.Mean();
    EXPECT_EQ(sum.Mean(), first);
    std::ranges::shuffle(samples, random);
  }
}

TEST(CheckImportance, AcceptsTheWholeRangeOfACosine) {
  EXPECT_THAT(CheckImportance(Reals{0, 2}), IsOk());
  EXPECT_THAT(CheckImportance(Reals{}), StatusIs(kInvalid, HasSubstr("layers")));
}

}  // namespace
}  // namespace maskkv::policy::importance_test
