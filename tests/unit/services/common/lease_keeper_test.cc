// SPDX-License-Identifier: Apache-2.0
#include "services/common/lease_keeper.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <vector>

#include "tests/support/wait_until.h"

namespace maskkv::services {
namespace {

using maskkv::testing::WaitUntil;
using namespace std::chrono_literals;

TEST(LeaseKeeper, RenewsUntilTheLeaseIsReleased) {
  LeaseKeeper keeper(1ms);
  std::atomic<int> renewed{0}, other{0};
  keeper.Keep("a", [&] { ++renewed; });
  keeper.Keep("b", [&] { ++other; });
  WaitUntil([&] { return renewed >= 3 && other >= 3; });
  keeper.Release("a", [] {});
  keeper.Flush();
  const int after = renewed, others = other;
  WaitUntil([&] { return other >= others + 3; });
  EXPECT_EQ(renewed, after);
}

TEST(LeaseKeeper, ReleasesInOrderWithoutMakingAnybodyWait) {
  LeaseKeeper keeper(1h);
  std::mutex held;
  std::vector<int> done;
  held.lock();
  for (int i = 0; i < 5; ++i) {
    keeper.Release("", [&, i] {
      const std::lock_guard lock(held);
      done.push_back(i);
    });
  }
  EXPECT_TRUE(done.empty());
  held.unlock();
  keeper.Flush();
  EXPECT_EQ(done, (std::vector<int>{0, 1, 2, 3, 4}));
}

TEST(LeaseKeeper, WhatWaitsIsReleasedBeforeItStopsAndNothingAfterwards) {
  std::atomic<int> released{0};
  LeaseKeeper keeper(1h);
  keeper.Keep("a", [] { FAIL() << "an hour has not passed"; });
  for (int i = 0; i < 3; ++i) keeper.Release("a", [&] { ++released; });
  keeper.Stop();
  EXPECT_EQ(released, 3);
  keeper.Release("a", [&] { ++released; });
  keeper.Flush();
  keeper.Stop();
  EXPECT_EQ(released, 3);
}

}  // namespace
}  // namespace maskkv::services
