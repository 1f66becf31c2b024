// SPDX-License-Identifier: Apache-2.0
#include "services/common/placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pthread.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "services/common/cpu_list.h"
#include "services/common/machine.h"
#include "tests/support/seed.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_folder.h"

namespace maskkv::services {
namespace {

using kernels::CpuList;
using kernels::MemoryPolicy;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(CpuListTest, TakesNumbersRangesAndStepsInTheirOrder) {
  EXPECT_EQ(ParseCpuList("0").value(), (CpuList{0}));
  EXPECT_EQ(ParseCpuList("0-3,8").value(), (CpuList{0, 1, 2, 3, 8}));
  EXPECT_EQ(ParseCpuList("8,0-3").value(), (CpuList{8, 0, 1, 2, 3}));
  EXPECT_EQ(ParseCpuList("0-7:3,1").value(), (CpuList{0, 3, 6, 1}));
  EXPECT_EQ(ParseCpuList("5-5").value(), (CpuList{5}));
  EXPECT_EQ(ParseCpuList("2-3:2147483647").value(), (CpuList{2}));
  EXPECT_EQ(ParseCpuList("007").value(), (CpuList{7}));
  EXPECT_EQ(ParseCpuList("0-8191").value().size(), 8192U);
}

TEST(CpuListTest, RefusesWhatIsNoListAndSaysWhatItFound) {
  for (const std::string text : {" ",
                                 ",",
                                 "0,",
                                 ",0",
                                 "0,,1",
                                 "-",
                                 "-1",
                                 "0-",
                                 "3-1",
                                 "0--1",
                                 "0-1-2",
                                 "0 ",
                                 " 0",
                                 "0, 1",
                                 "+1",
                                 "0x1",
                                 "1.5",
                                 "a",
                                 "all",
                                 "0;1",
                                 "0-3:",
                                 "0-3:0",
                                 "0-3:-1",
                                 "0:2",
                                 "0-3:1:1",
                                 "99999999999",
                                 "0-99999999999",
                                 "0-3:99999999999",
                                 "1e3",
                                 "\t",
                                 "0\n"}) {
    const absl::StatusOr<CpuList> list = ParseCpuList(text);
    ASSERT_EQ(list.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_EQ(std::string(list.status().message()),
              "expected a list of CPUs as 0-3,8, found " + text);
  }
  const std::vector<std::pair<std::string, std::string>> others{
      {"", "expected a list of CPUs as 0-3,8, found nothing"},
      {"8192", "expected CPUs from 0 to 8191, found 8192"},
      {"0-2147483647", "expected CPUs from 0 to 8191, found 2147483647"},
      {"0,0", "expected every CPU once, found 0 again in 0,0"},
      {"0-3,2", "expected every CPU once, found 2 again in 0-3,2"},
      {"4-6,0-8:2", "expected every CPU once, found 4 again in 4-6,0-8:2"}};
  for (const auto& [text, said] : others) {
    EXPECT_EQ(std::string(ParseCpuList(text).status().message()), said);
  }
}

TEST(CpuListTest, AnyListIsReadAsItIsWrittenAndAnyTextIsReadOrRefused) {
  std::mt19937_64 random(maskkv::testing::Seed());
  for (std::size_t round = 0; round < 300; ++round) {
    CpuList cpus(1 + random() % 40);
    for (std::size_t i = 0; i < cpus.size(); ++i)
      cpus[i] = static_cast<int>(i + i / (1 + round % 7));
    if (round % 2 == 0) std::ranges::shuffle(cpus, random);
    EXPECT_EQ(ParseCpuList(FormatCpuList(cpus)).value(), cpus);
    std::string text(random() % 8, ' ');
    for (char& letter : text) letter = "0123-,: "[random() % 8];
    const absl::StatusOr<CpuList> read = ParseCpuList(text);
    if (!read.ok()) continue;
    EXPECT_EQ(ParseCpuList(FormatCpuList(*read)).value(), *read) << text;
  }
  EXPECT_EQ(FormatCpuList({}), "");
  EXPECT_EQ(FormatCpuList(CpuList{8, 0, 1, 2, 5, 4}), "8,0-2,5,4");
}

// Two nodes of four CPUs each, and a third that has memory alone.
class FakeMachine {
 public:
  FakeMachine() {
    Write("/sys/devices/system/cpu/online", "0-7\n");
    Write("/sys/devices/system/node/has_memory", "0-2\n");
    Write("/sys/devices/system/node/node0/cpulist", "0-1,4-5\n");
    Write("/sys/devices/system/node/node1/cpulist", "2-3,6-7\n");
    Write("/sys/devices/system/node/node2/cpulist", "\n");
    Write("/proc/self/status", "Name:\tx\nMems_allowed:\t7\nMems_allowed_list:\t0-2\n");
  }
  void Write(const std::string& path, const std::string& text) {
    const std::string file = folder_.path() + path;
    std::filesystem::create_directories(std::filesystem::path(file).parent_path());
    std::ofstream(file) << text;
  }
  Machine Read() const {
    Machine machine = ReadMachine(folder_.path());
    machine.allowed = {0, 1, 2, 3, 4, 5, 6, 7};
    machine.usable = 8;
    return machine;
  }

 private:
  testing::TempFolder folder_;
};

std::vector<int> Ids(const Machine& machine) {
  std::vector<int> ids;
  for (const NumaNode& node : machine.nodes) ids.push_back(node.id);
  return ids;
}

TEST(MachineTest, ReadsCpusAndNodes) {
  FakeMachine fake;
  const Machine machine = fake.Read();
  EXPECT_EQ(machine.online.size(), 8U);
  EXPECT_THAT(Ids(machine), ElementsAre(0, 1, 2));
  EXPECT_THAT(machine.nodes[1].cpus, ElementsAre(2, 3, 6, 7));
  EXPECT_THAT(machine.nodes[2].cpus, IsEmpty());
  fake.Write("/proc/self/status", "Mems_allowed_list:\t1\n");
  EXPECT_THAT(Ids(fake.Read()), ElementsAre(1));
  fake.Write("/sys/devices/system/node/has_memory", "none\n");
  EXPECT_THAT(Ids(fake.Read()), IsEmpty());
  const testing::TempFolder empty;
  const Machine nothing = ReadMachine(empty.path());
  EXPECT_THAT(nothing.online, IsEmpty());
  EXPECT_THAT(nothing.nodes, IsEmpty());
  EXPECT_EQ(nothing.allowed, kernels::CpusOfThread());
}

TEST(MachineTest, ThisOneIsUsable) {
  const Machine machine = ReadMachine();
  EXPECT_FALSE(machine.allowed.empty());
  EXPECT_GE(machine.usable, 1);
  EXPECT_LE(machine.usable, static_cast<int>(machine.allowed.size()));
}

kernels::PoolOptions Placed(const PlacementOptions& options, const Machine& machine) {
  const absl::StatusOr<kernels::PoolOptions> pool = PlacePool(options, machine);
  EXPECT_THAT(pool, testing::IsOk());
  return pool.value_or(kernels::PoolOptions{});
}

TEST(PlacePoolTest, ThreadsAreThoseAskedForElseOneACpu) {
  Machine machine = FakeMachine().Read();
  machine.usable = 5;
  EXPECT_EQ(Placed({}, machine).threads, 5);
  EXPECT_THAT(Placed({}, machine).cpus, IsEmpty());
  EXPECT_EQ(Placed({.threads = 64}, machine).threads, 64);
  EXPECT_EQ(Placed({.cpus = "6,0-5"}, machine).threads, 7);
  const kernels::PoolOptions pool = Placed({.threads = 2, .cpus = "6,0-5"}, machine);
  EXPECT_EQ(pool.threads, 2);
  EXPECT_THAT(pool.cpus, ElementsAre(6, 0));
  EXPECT_THAT(CpusBeside(pool, machine.allowed), ElementsAre(1, 2, 3, 4, 5, 7));
  EXPECT_THAT(CpusBeside(pool, {0, 6}), IsEmpty());
  EXPECT_THAT(CpusBeside(Placed({}, machine), machine.allowed), IsEmpty());
}

TEST(PlacePoolTest, ThreadsOfAProcessWithOneCpuAreOne) {
  const CpuList allowed = kernels::CpusOfThread();
  ASSERT_EQ(kernels::SetCpusOfThread(::pthread_self(), {&allowed.back(), 1}), 0);
  const absl::StatusOr<kernels::PoolOptions> pool = PlacePoolHere({});
  kernels::SetCpusOfThread(::pthread_self(), allowed);
  ASSERT_THAT(pool, testing::IsOk());
  EXPECT_EQ(pool->threads, 1);
}

TEST(PlacePoolTest, InterleavesOverTheNodesOfTheCpus) {
  Machine machine = FakeMachine().Read();
  const auto nodes = [&](const std::string& cpus) {
    const kernels::PoolOptions pool = Placed({.cpus = cpus, .numa = "interleave"}, machine);
    EXPECT_EQ(pool.memory.policy, MemoryPolicy::kInterleave);
    return pool.memory.nodes;
  };
  EXPECT_THAT(nodes("0,4-5"), ElementsAre(0));
  EXPECT_THAT(nodes("7"), ElementsAre(1));
  EXPECT_THAT(nodes("0-3"), ElementsAre(0, 1));
  EXPECT_THAT(nodes(""), ElementsAre(0, 1));
  machine.allowed = {2, 3};
  EXPECT_THAT(nodes(""), ElementsAre(1));
  machine.nodes.erase(machine.nodes.begin() + 1);  // CPUs without memory of their own
  EXPECT_THAT(nodes(""), ElementsAre(0, 2));
  for (const auto& [name, policy] : {std::pair("none", MemoryPolicy::kNone),
                                     {"local", MemoryPolicy::kLocal},
                                     {"", MemoryPolicy::kNone}}) {
    const kernels::PoolOptions pool = Placed({.numa = name}, machine);
    EXPECT_EQ(pool.memory.policy, policy);
    EXPECT_THAT(pool.memory.nodes, IsEmpty());
  }
}

TEST(PlacePoolTest, SaysOnOneLineWhatCannotBe) {
  Machine machine = FakeMachine().Read();
  machine.allowed = {0, 1, 4};
  const auto said = [&](const PlacementOptions& options) {
    const absl::Status status = PlacePool(options, machine).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_EQ(said({.cpus = "0-"}), "--cpus: expected a list of CPUs as 0-3,8, found 0-");
  EXPECT_EQ(said({.cpus = "0,1,8"}),
            "--cpus: expected CPUs that the machine has online (0-7), found 8");
  EXPECT_EQ(said({.cpus = "0,2"}),
            "--cpus: expected CPUs that this process may run on (0-1,4), found 2");
  EXPECT_EQ(said({.threads = 3, .cpus = "0-1"}),
            "--threads: expected at most one for each of --cpus 0-1, 2, found 3");
  EXPECT_EQ(said({.numa = "both"}), "--numa: expected none, interleave or local, found both");
  machine.nodes.clear();
  EXPECT_EQ(said({.numa = "interleave"}),
            "--numa: interleave: expected a kernel with NUMA nodes below 1024, found none");
  machine.online.clear();
  EXPECT_EQ(said({.cpus = "9"}),
            "--cpus: expected CPUs that this process may run on (0-1,4), found 9");
}

}  // namespace
}  // namespace maskkv::services
