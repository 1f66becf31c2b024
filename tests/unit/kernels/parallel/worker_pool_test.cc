// SPDX-License-Identifier: Apache-2.0
#include "kernels/parallel/worker_pool.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "tests/support/seed.h"

namespace maskkv::kernels {
namespace {

class WorkerPoolTest : public ::testing::TestWithParam<int> {};

TEST_P(WorkerPoolTest, RunsEveryItemExactlyOnceThroughRandomLoops) {
  WorkerPool pool(GetParam());
  std::mt19937_64 random(maskkv::testing::Seed());
  for (int loop = 0; loop < 2000; ++loop) {
    const auto items = static_cast<std::int64_t>(random() % 40);
    // Plain integers: an item run twice at once is a race that TSan reports.
    std::vector<int> runs(static_cast<std::size_t>(items), 0);
    std::atomic<bool> worker_in_range{true};
    pool.ParallelFor(items, [&](std::int64_t item, int worker) {
      ++runs[static_cast<std::size_t>(item)];
      if (worker < 0 || worker >= pool.threads()) worker_in_range = false;
    });
    ASSERT_EQ(runs, std::vector<int>(runs.size(), 1)) << "loop " << loop;
    ASSERT_TRUE(worker_in_range);
    pool.CheckInvariants();
  }
}

TEST_P(WorkerPoolTest, GivesTheSameResultForAnyNumberOfThreads) {
  WorkerPool pool(GetParam());
  std::vector<double> sums(100);
  pool.ParallelFor(100, [&](std::int64_t item, int) {
    double sum = 0.0;
    for (int i = 1; i < 500; ++i) sum += 1.0 / (static_cast<double>(item) + i);
    sums[static_cast<std::size_t>(item)] = sum;
  });
  std::vector<double> expected(100);
  WorkerPool alone(1);
  alone.ParallelFor(100, [&](std::int64_t item, int) {
    double sum = 0.0;
    for (int i = 1; i < 500; ++i) sum += 1.0 / (static_cast<double>(item) + i);
    expected[static_cast<std::size_t>(item)] = sum;
  });
  EXPECT_EQ(sums, expected);
}

TEST_P(WorkerPoolTest, AWorkersScratchIsNeverSharedByTwoItemsAtOnce) {
  WorkerPool pool(GetParam());
  std::vector<std::unique_ptr<std::atomic<int>>> inside;
  for (int worker = 0; worker < pool.threads(); ++worker) {
    inside.push_back(std::make_unique<std::atomic<int>>(0));
  }
  std::atomic<bool> shared{false};
  for (int loop = 0; loop < 200; ++loop) {
    pool.ParallelFor(64, [&](std::int64_t, int worker) {
      std::atomic<int>& count = *inside[static_cast<std::size_t>(worker)];
      if (count.fetch_add(1) != 0) shared = true;
      count.fetch_sub(1);
    });
  }
  EXPECT_FALSE(shared);
}

TEST_P(WorkerPoolTest, ShowsTheCallerWhatBodiesWroteAndBodiesWhatTheCallerWrote) {
  WorkerPool pool(GetParam());
  std::vector<std::int64_t> values(50, 0);
  for (std::int64_t loop = 1; loop <= 300; ++loop) {
    values[0] = loop;  // plain writes between loops: ordered by the pool alone
    pool.ParallelFor(49, [&](std::int64_t item, int) {
      values[static_cast<std::size_t>(item) + 1] = values[0] + item;
    });
    for (std::int64_t item = 0; item < 49; ++item) {
      ASSERT_EQ(values[static_cast<std::size_t>(item) + 1], loop + item);
    }
  }
}

TEST_P(WorkerPoolTest, RunsOpenMpSingleThreadedInBodiesAndRestoresTheCallersSetting) {
  omp_set_num_threads(3);
  WorkerPool pool(GetParam());
  std::atomic<bool> single{true};
  pool.ParallelFor(100, [&](std::int64_t, int) {
    if (omp_get_max_threads() != 1) single = false;
  });
  EXPECT_TRUE(single);
  EXPECT_EQ(omp_get_max_threads(), 3);
}

TEST_P(WorkerPoolTest, MayBeUsedByDifferentThreadsInTurn) {
  WorkerPool pool(GetParam());
  std::int64_t total = 0;
  for (int turn = 0; turn < 10; ++turn) {
    std::thread caller([&] {
      std::vector<std::int64_t> items(30);
      pool.ParallelFor(
          30, [&](std::int64_t item, int) { items[static_cast<std::size_t>(item)] = item; });
      for (const std::int64_t item : items) total += item;
    });
    caller.join();
  }
  EXPECT_EQ(total, 10 * 435);
  pool.CheckInvariants();
}

TEST_P(WorkerPoolTest, DestructionJoinsIdleWorkersWhetherTheyEverRanOrNot) {
  for (int i = 0; i < 50; ++i) {
    WorkerPool pool(GetParam());
    if (i % 2 == 0) pool.ParallelFor(8, [](std::int64_t, int) {});
  }
}

TEST_P(WorkerPoolTest, EveryWorkerTakesPartWhenEveryItemWaitsForAllOthers) {
  WorkerPool pool(GetParam());
  for (int loop = 0; loop < 5; ++loop) {
    std::atomic<int> arrived{0};
    pool.ParallelFor(pool.threads(), [&](std::int64_t, int) {
      arrived.fetch_add(1);
      while (arrived.load() < pool.threads()) std::this_thread::yield();
    });
    EXPECT_EQ(arrived.load(), pool.threads());
  }
}

INSTANTIATE_TEST_SUITE_P(Threads, WorkerPoolTest, ::testing::Values(1, 2, 4, 9));

TEST(WorkerPoolDeathTest, RefusesNestedLoopsBadCountsAndExceptions) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(WorkerPool(0), "a pool needs a thread");
  EXPECT_DEATH(WorkerPool(2).ParallelFor(-1, [](std::int64_t, int) {}), "negative number of items");
  EXPECT_DEATH(
      {
        WorkerPool pool(1);
        pool.ParallelFor(1,
                         [&](std::int64_t, int) { pool.ParallelFor(1, [](std::int64_t, int) {}); });
      },
      "concurrent or nested loop");
  EXPECT_DEATH(WorkerPool(1).ParallelFor(1, [](std::int64_t, int) { throw 1; }), "");
}

}  // namespace
}  // namespace maskkv::kernels
