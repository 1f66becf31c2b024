// SPDX-License-Identifier: Apache-2.0
#include "core/decoding/scheduled_rules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace maskkv::decoding {
namespace {

using ::testing::ElementsAre;

TEST(CommitCount, SpreadsMasksOverStepsTheFirstOnesTakingTheRemainder) {
  std::vector<std::int64_t> counts;
  for (std::int64_t step = 0; step < 3; ++step) counts.push_back(CommitCount(8, 3, step));
  EXPECT_THAT(counts, ElementsAre(3, 3, 2));
  EXPECT_EQ(CommitCount(2, 5, 1), 1);
  EXPECT_EQ(CommitCount(2, 5, 2), 0);
}

}  // namespace
}  // namespace maskkv::decoding
