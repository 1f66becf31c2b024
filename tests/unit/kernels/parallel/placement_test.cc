// SPDX-License-Identifier: Apache-2.0
//
// Where a pool's threads run and where their memory lies, as the kernel itself reports it.
#include <gtest/gtest.h>
#include <numaif.h>
#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "kernels/parallel/cpus.h"
#include "kernels/parallel/memory_policy.h"
#include "kernels/parallel/worker_pool.h"
#include "tests/support/temp_folder.h"

namespace maskkv::kernels {
namespace {

constexpr double kNoQuota = std::numeric_limits<double>::infinity();

// Puts the thread's affinity back.
class AffinityTest : public ::testing::Test {
 protected:
  ~AffinityTest() override { SetCpusOfThread(::pthread_self(), allowed_); }
  const CpuList allowed_ = CpusOfThread();
};

// A folder in which the system's files stand as they are told.
class FakeRoot {
 public:
  FakeRoot& Write(const std::string& path, const std::string& text) {
    const std::string file = folder_.path() + path;
    std::filesystem::create_directories(std::filesystem::path(file).parent_path());
    std::ofstream(file) << text;
    return *this;
  }
  double Quota() const { return CpuQuota(folder_.path()); }
  const std::string& path() const { return folder_.path(); }

 private:
  testing::TempFolder folder_;
};

TEST(CpuQuotaTest, IsTheLeastOfTheGroupAndThoseAboveIt) {
  FakeRoot root;
  root.Write("/proc/self/cgroup", "0::/a/b/c\n")
      .Write("/sys/fs/cgroup/a/b/c/cpu.max", "max 100000\n")
      .Write("/sys/fs/cgroup/a/b/cpu.max", "150000 100000\n")
      .Write("/sys/fs/cgroup/a/cpu.max", "800000 200000\n");
  EXPECT_EQ(root.Quota(), 1.5);
  root.Write("/sys/fs/cgroup/cpu.max", "50000 100000\n");
  EXPECT_EQ(root.Quota(), 0.5);
}

TEST(CpuQuotaTest, ReadsGroupsOfVersion1AndOfPathsThatAContainerDoesNotSee) {
  FakeRoot root;
  root.Write("/proc/self/cgroup", "9:cpuset:/x\n4:cpuacct,cpu:/docker/0123\n0::/\n")
      .Write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "250000\n")
      .Write("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(root.Quota(), 2.5);
  root.Write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
  EXPECT_EQ(root.Quota(), kNoQuota);
}

TEST(CpuQuotaTest, IsNoneWhereNothingOrNonsenseIsWritten) {
  FakeRoot root;
  EXPECT_EQ(root.Quota(), kNoQuota);
  root.Write("/proc/self/cgroup", "\n:\n0\n0::\n7:cpus:/a\n");
  EXPECT_EQ(root.Quota(), kNoQuota);
  for (const char* text : {"", "max\n", "max 100000\n", "100000\n", "100000 0\n", "x 100000\n"}) {
    root.Write("/sys/fs/cgroup/cpu.max", text);
    EXPECT_EQ(root.Quota(), kNoQuota) << text;
  }
}

TEST_F(AffinityTest, UsableCpusAreThoseOfAffinityAndWholeOnesOfTheQuota) {
  FakeRoot root;
  EXPECT_EQ(UsableCpus(root.path()), static_cast<int>(allowed_.size()));
  root.Write("/proc/self/cgroup", "0::/\n").Write("/sys/fs/cgroup/cpu.max", "190000 100000\n");
  EXPECT_EQ(UsableCpus(root.path()), 1);
  root.Write("/sys/fs/cgroup/cpu.max", "10000 100000\n");
  EXPECT_EQ(UsableCpus(root.path()), 1);
  root.Write("/sys/fs/cgroup/cpu.max", "max 100000\n");
  ASSERT_EQ(SetCpusOfThread(::pthread_self(), {&allowed_.back(), 1}), 0);
  EXPECT_EQ(CpusOfThread(), CpuList{allowed_.back()});
  EXPECT_EQ(UsableCpus(root.path()), 1);
}

TEST_F(AffinityTest, APoolOfMoreThreadsThanCpusDoesNotPoll) {
  ASSERT_EQ(SetCpusOfThread(::pthread_self(), {&allowed_.front(), 1}), 0);
  EXPECT_FALSE(WorkerPool(2).polls());
  EXPECT_TRUE(WorkerPool(1).polls());
  SetCpusOfThread(::pthread_self(), allowed_);
  EXPECT_EQ(WorkerPool(2).polls(), UsableCpus() >= 2);
}

TEST_F(AffinityTest, ACpuThatTheSystemRefusesChangesNothing) {
  const int none = kMostCpus - 1;
  EXPECT_NE(SetCpusOfThread(::pthread_self(), {&none, 1}), 0);
  EXPECT_NE(SetCpusOfThread(::pthread_self(), {}), 0);
  EXPECT_EQ(CpusOfThread(), allowed_);
  EXPECT_THROW(WorkerPool({.threads = 2, .cpus = {allowed_.front(), none}}), std::system_error);
  EXPECT_THROW(WorkerPool({.threads = 3, .cpus = {allowed_.front(), allowed_.front(), none}}),
               std::system_error);
  WorkerPool alone({.threads = 1, .cpus = {none}});
  const WorkerPool::Seat refused(alone);
  EXPECT_EQ(CpusOfThread(), allowed_);
}

TEST_F(AffinityTest, EveryThreadOfTheProcessMoves) {
  std::atomic<bool> moved{false};
  CpuList seen;
  std::thread other([&] {
    moved.wait(false);
    seen = CpusOfThread();
  });
  const CpuList one{allowed_.back()};
  SetCpusOfProcess(one);
  moved = true;
  moved.notify_one();
  other.join();
  EXPECT_EQ(seen, one);
  EXPECT_EQ(CpusOfThread(), one);
}

// What the bodies of one loop say of their threads; every worker runs one item.
struct Seen {
  explicit Seen(WorkerPool& pool)
      : cpu(static_cast<std::size_t>(pool.threads())), allowed(cpu.size()), policy(cpu.size()) {
    std::atomic<int> arrived{0};
    pool.ParallelFor(pool.threads(), [&](std::int64_t, int worker) {
      const auto at = static_cast<std::size_t>(worker);
      cpu[at] = ::sched_getcpu();
      allowed[at] = CpusOfThread();
      ::get_mempolicy(&policy[at], nullptr, 0, nullptr, 0);
      arrived.fetch_add(1);
      while (arrived.load() < pool.threads()) std::this_thread::yield();
    });
  }
  std::vector<int> cpu;
  std::vector<CpuList> allowed;
  std::vector<int> policy;
};

TEST_F(AffinityTest, WorkersRunOnTheirCpusInTheListsOrder) {
  CpuList cpus(allowed_.rbegin(), allowed_.rend());
  cpus.resize(std::min<std::size_t>(cpus.size(), 4));
  WorkerPool pool({.threads = static_cast<int>(cpus.size()), .cpus = cpus});
  for (int turn = 0; turn < 3; ++turn) {
    const WorkerPool::Seat seat(pool);
    const Seen seen(pool);
    EXPECT_EQ(seen.cpu, cpus);
    for (std::size_t worker = 0; worker < cpus.size(); ++worker) {
      EXPECT_EQ(seen.allowed[worker], CpuList{cpus[worker]}) << worker;
    }
    { const WorkerPool::Seat inner(pool); }
    EXPECT_EQ(CpusOfThread(), CpuList{cpus.front()});
  }
  EXPECT_EQ(CpusOfThread(), allowed_);
  // Whoever stands computes where it is.
  const Seen seen(pool);
  EXPECT_EQ(seen.allowed[0], allowed_);
}

TEST_F(AffinityTest, APoolWithoutCpusLeavesThreadsWhereTheyMayBe) {
  WorkerPool pool(3);
  const WorkerPool::Seat seat(pool);
  EXPECT_EQ(Seen(pool).allowed, std::vector<CpuList>(3, allowed_));
}

int PolicyOfThread() {
  int policy = -1;
  ::get_mempolicy(&policy, nullptr, 0, nullptr, 0);
  return policy;
}

// The lowest node that the thread may have memory of.
int AllowedNode() {
  std::vector<unsigned long> nodes(kMostNodes / 64);
  ::get_mempolicy(nullptr, nodes.data(), kMostNodes + 1, nullptr, MPOL_F_MEMS_ALLOWED);
  for (int node = 0; node < kMostNodes; ++node) {
    if ((nodes[static_cast<std::size_t>(node / 64)] >> (node % 64) & 1) != 0) return node;
  }
  return -1;
}

class MemoryPolicyTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const ScopedMemoryPolicy tried({.policy = MemoryPolicy::kLocal});
    if (tried.error() != 0) GTEST_SKIP() << "the system refuses: " << tried.error();
  }
  const int node_ = AllowedNode();
  const int before_ = PolicyOfThread();
};

TEST_F(MemoryPolicyTest, HoldsForAScopeAndScopesNest) {
  {
    const ScopedMemoryPolicy outer({.policy = MemoryPolicy::kInterleave, .nodes = {node_}});
    EXPECT_EQ(PolicyOfThread(), MPOL_INTERLEAVE);
    {
      const ScopedMemoryPolicy inner({.policy = MemoryPolicy::kLocal});
      EXPECT_EQ(PolicyOfThread(), MPOL_LOCAL);
      const ScopedMemoryPolicy none({});
      EXPECT_EQ(PolicyOfThread(), MPOL_LOCAL);
    }
    std::vector<unsigned long> nodes(kMostNodes / 64);
    int policy = 0;
    ASSERT_EQ(::get_mempolicy(&policy, nodes.data(), kMostNodes + 1, nullptr, 0), 0);
    EXPECT_EQ(policy, MPOL_INTERLEAVE);
    EXPECT_EQ(nodes[static_cast<std::size_t>(node_ / 64)], 1UL << (node_ % 64));
  }
  EXPECT_EQ(PolicyOfThread(), before_);
}

TEST_F(MemoryPolicyTest, ANodeThatIsNotThereIsRefusedAndChangesNothing) {
  const ScopedMemoryPolicy refused(
      {.policy = MemoryPolicy::kInterleave, .nodes = {kMostNodes - 1}});
  EXPECT_NE(refused.error(), 0);
  EXPECT_EQ(PolicyOfThread(), before_);
}

TEST_F(MemoryPolicyTest, IsThatOfAllWorkersAndOfWhoSits) {
  WorkerPool pool(
      {.threads = 3, .memory = {.policy = MemoryPolicy::kInterleave, .nodes = {node_}}});
  {
    const WorkerPool::Seat seat(pool);
    EXPECT_EQ(Seen(pool).policy, std::vector<int>(3, MPOL_INTERLEAVE));
  }
  EXPECT_EQ(PolicyOfThread(), before_);
  WorkerPool local({.threads = 2, .memory = {.policy = MemoryPolicy::kLocal}});
  const WorkerPool::Seat seat(local);
  EXPECT_EQ(Seen(local).policy, std::vector<int>(2, MPOL_LOCAL));
}

TEST(PlacementDeathTest, RefusesCpusThatAreNotOneAWorker) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(WorkerPool({.threads = 2, .cpus = {0}}), "a CPU for each worker");
  EXPECT_DEATH(WorkerPool({.threads = 1, .cpus = {0, 1}}), "a CPU for each worker");
  const int beyond = kMostCpus;
  EXPECT_DEATH(SetCpusOfThread(::pthread_self(), {&beyond, 1}), "CPU number");
}

}  // namespace
}  // namespace maskkv::kernels
