// SPDX-License-Identifier: Apache-2.0
//
// Turns through a file: two open files in one process are to the kernel what two processes are.
#include "core/schedule/file_turns.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/seed.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_folder.h"

namespace maskkv::schedule {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class FileTurnsTest : public ::testing::Test {
 protected:
  std::unique_ptr<FileTurns> Open(Side side, Duration longest_wait = hours(1), double share = 0) {
    absl::StatusOr<std::unique_ptr<FileTurns>> turns = FileTurns::Open(
        path_, {.side = side, .prefill_share = share, .longest_wait = longest_wait});
    EXPECT_TRUE(turns.ok()) << turns.status();
    return std::move(turns).value();
  }
  static void UntilWanted(const FileTurns& turns, Side side) {
    while (!turns.OthersWant(side)) std::this_thread::yield();
  }
  void Say(const char* what) {
    const std::lock_guard lock(mu_);
    log_.emplace_back(what);
  }

  const testing::TempFolder folder_;
  const std::string path_ = folder_.File("turns");
  std::mutex mu_;  // the file's locks are no locks to a race detector
  std::vector<std::string> log_;
};

TEST_F(FileTurnsTest, NobodyWaitsWhileTheCoresAreFree) {
  const auto step = Open(Side::kStep), tile = Open(Side::kTile);
  for (int i = 0; i < 3; ++i) {
    EXPECT_FALSE(step->Begin(Side::kStep).waited);
    step->End(Side::kStep);
    if (i == 1) continue;
    EXPECT_FALSE(tile->Begin(Side::kTile).waited);
    EXPECT_FALSE(tile->GiveWay().waited);
    tile->End(Side::kTile);
  }
  struct stat about {};
  ASSERT_EQ(::stat(path_.c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 0777U, 0600U);
}

TEST_F(FileTurnsTest, AStepThatAsksWaitsForTheTileThatRunsAlone) {
  const auto step = Open(Side::kStep), tile = Open(Side::kTile);
  tile->Begin(Side::kTile);
  Say("tile 1");
  std::thread decode([&] {
    const TurnWait wait = step->Begin(Side::kStep);
    EXPECT_TRUE(wait.waited);
    EXPECT_FALSE(wait.missed);
    Say("step");
    step->End(Side::kStep);
  });
  UntilWanted(*tile, Side::kStep);
  EXPECT_TRUE(tile->GiveWay().waited);
  Say("tile 2");
  EXPECT_FALSE(tile->GiveWay().waited);
  tile->End(Side::kTile);
  decode.join();
  EXPECT_THAT(log_, ElementsAre("tile 1", "step", "tile 2"));
}

TEST_F(FileTurnsTest, AfterAStepAPrefillThatWaitsGetsATile) {
  const auto step = Open(Side::kStep), tile = Open(Side::kTile);
  step->Begin(Side::kStep);
  std::thread prefill([&] {
    tile->Begin(Side::kTile);
    Say("tile");
    tile->End(Side::kTile);
  });
  UntilWanted(*step, Side::kTile);
  step->End(Side::kStep);
  step->Begin(Side::kStep);
  Say("step");
  step->End(Side::kStep);
  prefill.join();
  EXPECT_THAT(log_, ElementsAre("tile", "step"));
}

TEST_F(FileTurnsTest, PrefillsOfTwoProcessesAlternate) {
  const auto one = Open(Side::kTile), other = Open(Side::kTile);
  one->Begin(Side::kTile);
  std::thread prefill([&] {
    other->Begin(Side::kTile);
    Say("other");
    other->End(Side::kTile);
  });
  UntilWanted(*one, Side::kTile);
  EXPECT_TRUE(one->GiveWay().waited);
  Say("one");
  one->End(Side::kTile);
  prefill.join();
  EXPECT_THAT(log_, ElementsAre("other", "one"));
}

TEST_F(FileTurnsTest, TheTurnsOfAProcessThatIsKilledAreFree) {
  int told[2];
  ASSERT_EQ(::pipe2(told, O_CLOEXEC), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const auto tile = Open(Side::kTile);
    tile->Begin(Side::kTile);
    const char byte = 1;
    if (::write(told[1], &byte, 1) != 1) ::_exit(1);
    while (true) ::pause();
  }
  char byte = 0;
  ASSERT_EQ(::read(told[0], &byte, 1), 1);
  const auto step = Open(Side::kStep);
  std::thread decode([&] {
    const TurnWait wait = step->Begin(Side::kStep);
    EXPECT_TRUE(wait.waited);
    EXPECT_FALSE(wait.missed);
    step->End(Side::kStep);
  });
  const auto look = Open(Side::kTile);
  UntilWanted(*look, Side::kStep);
  ::kill(child, SIGKILL);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  decode.join();
  ::close(told[0]);
  ::close(told[1]);
}

TEST_F(FileTurnsTest, OneThatIsStoppedIsWaitedForOnceAndTrustedAgainWhenItGoesOn) {
  const auto step = Open(Side::kStep, milliseconds(1)), tile = Open(Side::kTile);
  tile->Begin(Side::kTile);  // and here it stops
  for (int i = 0; i < 3; ++i) {
    const TurnWait wait = step->Begin(Side::kStep);
    EXPECT_TRUE(wait.waited);
    EXPECT_TRUE(wait.missed);
    step->End(Side::kStep);
  }
  EXPECT_TRUE(tile->OthersWant(Side::kStep)) << "so that it gives way when it goes on";
  std::thread prefill([&] {
    EXPECT_TRUE(tile->GiveWay().waited);
    tile->End(Side::kTile);
  });
  while (step->Begin(Side::kStep).missed) step->End(Side::kStep);
  step->End(Side::kStep);
  prefill.join();
  EXPECT_FALSE(step->Begin(Side::kStep).waited);
  step->End(Side::kStep);
}

TEST_F(FileTurnsTest, OneThatStopsWhileItWaitsIsWaitedForOnce) {
  const auto step = Open(Side::kStep, milliseconds(1)),
             stopped = Open(Side::kTile, milliseconds(1));
  step->Begin(Side::kStep);
  EXPECT_TRUE(stopped->Begin(Side::kTile).missed);
  step->End(Side::kStep);
  ASSERT_TRUE(step->OthersWant(Side::kTile)) << "and does not come";
  for (int i = 0; i < 3; ++i) {
    const TurnWait wait = step->Begin(Side::kStep);
    EXPECT_EQ(wait.waited, i == 0);
    EXPECT_FALSE(wait.missed);
    step->End(Side::kStep);
  }
  stopped->End(Side::kTile);
  EXPECT_FALSE(stopped->Begin(Side::kTile).missed) << "it goes on";
  stopped->End(Side::kTile);
  EXPECT_FALSE(step->Begin(Side::kStep).waited);
  step->End(Side::kStep);
}

TEST_F(FileTurnsTest, WhateverStandsInTheFileNobodyHangs) {
  std::mt19937_64 random(testing::Seed());
  const UniqueFd file(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  const auto step = Open(Side::kStep, milliseconds(5), 0.5);
  const auto tile = Open(Side::kTile, milliseconds(5), 0.5);
  std::atomic<bool> over = false;
  std::thread prefill([&] {
    tile->Begin(Side::kTile);
    while (!over) tile->GiveWay();
    tile->End(Side::kTile);
  });
  for (int round = 0; round < 60; ++round) {
    step->Begin(Side::kStep);
    std::uint64_t words[5];
    for (std::uint64_t& word : words) word = random() % 4 == 0 ? random() % 3 : random();
    if (round % 10 == 0) {
      ASSERT_EQ(::ftruncate(file.get(), static_cast<off_t>(random() % sizeof words)), 0);
    } else {
      ASSERT_EQ(::pwrite(file.get(), words, sizeof words, 0), sizeof words);
    }
    step->End(Side::kStep);
  }
  over = true;
  prefill.join();
  tile->Begin(Side::kTile);
  tile->End(Side::kTile);
  EXPECT_FALSE(step->Begin(Side::kStep).missed);
  step->End(Side::kStep);
}

TEST_F(FileTurnsTest, SaysWhatIsNoFileToTakeTurnsBy) {
  EXPECT_THAT(FileTurns::Open(folder_.path(), {}).status().message(), HasSubstr(folder_.path()));
  const std::string pipe = folder_.File("pipe");
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_THAT(FileTurns::Open(pipe, {}),
              testing::StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("regular file")));
  EXPECT_FALSE(FileTurns::Open(folder_.File("none") + "/turns", {}).ok());
}

}  // namespace
}  // namespace maskkv::schedule
