// SPDX-License-Identifier: Apache-2.0
#include "core/policy/preference.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "tests/support/status_matchers.h"

namespace maskkv::policy::preference_test {
namespace {

using ::maskkv::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

TEST(PromptPreference, IsThePromptsShareOfTheAttention) {
  MASKKV_ASSERT_OK_AND_ASSIGN(const HeadVote vote,
                              PromptPreference(std::vector{0.5F, 0.25F, 1.0F, 1.25F}, 2));
  EXPECT_EQ(vote.prompt_mass, 0.75);
  EXPECT_EQ(vote.mask_mass, 2.25);
  EXPECT_EQ(vote.preference, 0.25);
}

TEST(PromptPreference, IsZeroWithoutAPromptAndOneWithoutAttentionToMasks) {
  EXPECT_EQ(PromptPreference(std::vector{0.5F, 0.5F}, 0)->preference, 0);
  EXPECT_EQ(PromptPreference(std::vector{0.5F, 0.5F, 0.0F}, 2)->preference, 1);
}

TEST(PromptPreference, IsZeroIfNothingWasAttendedTo) {
  EXPECT_EQ(PromptPreference(std::vector{0.0F, 0.0F}, 1)->preference, 0);
  EXPECT_EQ(PromptPreference({}, 0)->preference, 0);
}

TEST(PromptPreference, SumsInDoublePrecision) {
  // In f32 the ones would vanish beside 2^24.
  std::vector<float> scores(1001, 1.0F);
  scores[0] = 16777216.0F;
  EXPECT_EQ(PromptPreference(scores, 1001)->prompt_mass, 16778216.0);
}

TEST(PromptPreference, RefusesScoresThatAreNoAttention) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), -1e-30F}) {
    EXPECT_THAT(PromptPreference(std::vector{0.5F, 0.5F, bad}, 1),
                StatusIs(kInvalid, AllOf(HasSubstr("scores: position 2"),
                                         HasSubstr("expected a finite number >= 0, found"))));
  }
}

TEST(PromptPreference, RefusesASplitOutsideTheKeys) {
  const std::vector<float> scores{0.5F, 0.5F};
  EXPECT_THAT(PromptPreference(scores, 3),
              StatusIs(kInvalid, HasSubstr("prompt_tokens: expected an integer from 0 to 2")));
  EXPECT_THAT(PromptPreference(scores, -1), StatusIs(kInvalid, HasSubstr("found -1")));
}

}  // namespace
}  // namespace maskkv::policy::preference_test
