// SPDX-License-Identifier: Apache-2.0
#include "services/common/lifecycle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <fstream>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

namespace maskkv::services {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::internal::CaptureStderr;
using ::testing::internal::CaptureStdout;
using ::testing::internal::GetCapturedStderr;
using ::testing::internal::GetCapturedStdout;

struct Flags {
  int port = 1;
  std::string name = "none";
  bool verbose = false;
  std::vector<std::string> listen;
};

class LifecycleTest : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = std::filesystem::temp_directory_path() /
            ("maskkv-lifecycle-" + std::to_string(::getpid()) + ".toml");
  }
  void TearDown() override { std::filesystem::remove(path_); }

  // The exit code; what was printed on standard error goes to error_.
  int Run(std::vector<std::string> arguments, const std::string& config,
          absl::Status status = absl::OkStatus()) {
    if (!config.empty()) {
      std::ofstream(path_) << config;
      arguments.insert(arguments.end(), {"--config", path_.string()});
    }
    arguments.insert(arguments.begin(), "maskkv-test");
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    flags_ = Flags();
    CLI::App app("test", "maskkv-test");
    app.add_option("--port", flags_.port)->check(CLI::Range(0, 65535));
    app.add_option("--name", flags_.name);
    app.add_flag("--verbose", flags_.verbose);
    app.add_option("--listen", flags_.listen);
    DeclareConfig(app, "test");
    CaptureStderr();
    const int code = RunMain(static_cast<int>(arguments.size()), argv.data(), app, [&] {
      ran_ = true;
      return status;
    });
    error_ = GetCapturedStderr();
    return code;
  }

  std::filesystem::path path_;
  Flags flags_;
  std::string error_;
  bool ran_ = false;
};

TEST_F(LifecycleTest, FlagsComeFromTheCommandLine) {
  EXPECT_EQ(Run({"--port", "7", "--verbose"}, ""), 0);
  EXPECT_EQ(flags_.port, 7);
  EXPECT_TRUE(flags_.verbose);
  EXPECT_EQ(error_, "");
}

TEST_F(LifecycleTest, AFileSetsWhatTheCommandLineDoesNot) {
  EXPECT_EQ(Run({"--port", "7"},
                "# All services share this file.\n"
                "[other]\nport = 1\nunknown = 2\n"
                "[test]\nport = 8\nname = \"a b\"\nverbose = true\nlisten = [\"x\", \"y\"]\n"
                "[another.deeper]\nname = \"c\"\n"),
            0)
      << error_;
  EXPECT_EQ(flags_.port, 7);
  EXPECT_EQ(flags_.name, "a b");
  EXPECT_TRUE(flags_.verbose);
  EXPECT_THAT(flags_.listen, ::testing::ElementsAre("x", "y"));
}

TEST_F(LifecycleTest, AFileWithoutTheSectionSetsNothing) {
  EXPECT_EQ(Run({}, "[other]\nport = 8\n"), 0);
  EXPECT_EQ(flags_.port, 1);
}

TEST_F(LifecycleTest, UnknownKeysAreErrorsThatNameFileAndKey) {
  for (const char* config : {"[test]\nprot = 8\n", "[test]\nconfig = \"x\"\n",
                             "[test.deeper]\nprot = 8\n", "prot = 8\n"}) {
    EXPECT_EQ(Run({}, config), 2) << config;
    EXPECT_THAT(error_, HasSubstr(path_.string()));
    EXPECT_FALSE(ran_);
  }
  EXPECT_EQ(Run({}, "[test]\nprot = 8\n"), 2);
  EXPECT_THAT(error_, AllOf(::testing::StartsWith("maskkv-test: "), HasSubstr("found test.prot")));
}

TEST_F(LifecycleTest, BadValuesAndMissingFilesAreErrorsOfUsage) {
  EXPECT_EQ(Run({}, "[test]\nport = 70000\n"), 2);
  EXPECT_THAT(error_, HasSubstr("port"));
  EXPECT_EQ(Run({"--config", "/nowhere/a.toml"}, ""), 2);
  EXPECT_THAT(error_, HasSubstr("/nowhere/a.toml"));
  EXPECT_EQ(Run({"--prot", "7"}, ""), 2);
  EXPECT_THAT(error_, HasSubstr("--prot"));
  EXPECT_EQ(std::count(error_.begin(), error_.end(), '\n'), 1);
}

TEST_F(LifecycleTest, StatusesBecomeExitCodesAndOneLine) {
  EXPECT_EQ(Run({}, "", absl::NotFoundError("file:\nexpected")), 3);
  EXPECT_EQ(error_, "maskkv-test: file: expected\n");
  EXPECT_EQ(Run({}, "", absl::ResourceExhaustedError("memory")), 4);
  EXPECT_EQ(Run({}, "", absl::UnavailableError("taken")), 1);
  EXPECT_EQ(Run({}, "", absl::CancelledError("stopped")), 130);
}

TEST(LifecycleExceptionTest, ExceptionsOfLibrariesEndInACode) {
  char name[] = "maskkv-test";
  char* argv[] = {name, nullptr};
  CLI::App app("test", "maskkv-test");
  CaptureStderr();
  EXPECT_EQ(RunMain(1, argv, app, []() -> absl::Status { throw std::bad_alloc(); }), 4);
  EXPECT_EQ(RunMain(1, argv, app, []() -> absl::Status { throw std::runtime_error("x"); }), 1);
  EXPECT_EQ(GetCapturedStderr(), "maskkv-test: out of memory\nmaskkv-test: internal error: x\n");
}

TEST(LifecycleReadyTest, TheReadyLineIsJson) {
  CaptureStdout();
  PrintReady("127.0.0.1:1", "unix:a\"b");
  EXPECT_EQ(GetCapturedStdout(),
            "{\"ready\": true, \"grpc\": \"127.0.0.1:1\", \"metrics\": \"unix:a\\\"b\"}\n");
}

// What a process that waits for signals answers to `signals`.
int ExitOf(const std::vector<int>& signals, bool ends_after_first) {
  int ready[2], again[2];
  EXPECT_EQ(::pipe(ready) + ::pipe(again), 0);
  const pid_t child = ::fork();
  if (child < 0) return -1;  // never to be given to kill()
  if (child == 0) {
    BlockSignals();
    EXPECT_EQ(::write(ready[1], "r", 1), 1);
    WaitForSignal();
    if (ends_after_first) ::_exit(7);
    EXPECT_EQ(::write(again[1], "a", 1), 1);
    for (;;) ::pause();
  }
  char byte = 0;
  EXPECT_EQ(::read(ready[0], &byte, 1), 1);
  for (const int signal : signals) {
    ::kill(child, signal);
    if (!ends_after_first && signal == signals.front()) {
      EXPECT_EQ(::read(again[0], &byte, 1), 1);
    }
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  for (const int fd : {ready[0], ready[1], again[0], again[1]}) ::close(fd);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

TEST(LifecycleSignalTest, TheFirstSignalReturnsTheSecondEndsTheProcess) {
  EXPECT_EQ(ExitOf({SIGTERM}, true), 7);
  EXPECT_EQ(ExitOf({SIGINT}, true), 7);
  EXPECT_EQ(ExitOf({SIGTERM, SIGINT}, false), 130);
}

}  // namespace
}  // namespace maskkv::services
