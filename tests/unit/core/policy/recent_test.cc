// SPDX-License-Identifier: Apache-2.0
#include "core/policy/recent.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace maskkv::policy {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(Recent, SinksThenTheLast) {
  EXPECT_THAT(SelectRecent(0, 0), IsEmpty());
  EXPECT_THAT(SelectRecent(0, 9), IsEmpty());
  EXPECT_THAT(SelectRecent(1, 9), ElementsAre(8));
  EXPECT_THAT(SelectRecent(2, 9), ElementsAre(0, 8));
  EXPECT_THAT(SelectRecent(3, 9), ElementsAre(0, 7, 8));
  EXPECT_THAT(SelectRecent(8, 20), ElementsAre(0, 1, 2, 3, 16, 17, 18, 19));
  EXPECT_THAT(SelectRecent(10, 20), ElementsAre(0, 1, 2, 3, 14, 15, 16, 17, 18, 19));
}

TEST(Recent, PositionsAscendUpToTheWholePrompt) {
  for (std::int64_t n = 0; n < 30; ++n) {
    for (std::int64_t k = 0; k <= n; ++k) {
      const auto rows = SelectRecent(k, n);
      EXPECT_EQ(std::ssize(rows), k);
      EXPECT_TRUE(std::ranges::is_sorted(rows, std::less_equal<>()) || k < 2);
      EXPECT_EQ(std::ranges::adjacent_find(rows), rows.end());
      if (k > 0) {
        EXPECT_EQ(rows.back(), n - 1);
      }
    }
  }
}

}  // namespace
}  // namespace maskkv::policy
