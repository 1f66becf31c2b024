// SPDX-License-Identifier: Apache-2.0
#include "core/telemetry/log.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

namespace maskkv::telemetry {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::MatchesRegex;

// What `body` logs, one object a line.
template <typename Body>
std::vector<json> Logged(Body body) {
  ::testing::internal::CaptureStderr();
  body();
  CloseLog();
  std::istringstream lines(::testing::internal::GetCapturedStderr());
  std::vector<json> objects;
  for (std::string line; std::getline(lines, line);) objects.push_back(json::parse(line));
  return objects;
}

TEST(LogTest, ALineIsOneJsonObject) {
  const std::vector<json> lines = Logged([] {
    ConfigureLog("prefill", LogLevel::kInfo);
    Log(LogLevel::kInfo, "prefill_done",
        {{"request_id", "r1"}, {"tokens", std::int64_t{7}}, {"seconds", 0.5}, {"cached", true}});
  });
  ASSERT_EQ(lines.size(), 1U);
  json line = lines[0];
  EXPECT_THAT(line["time"].get<std::string>(),
              MatchesRegex("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}[.][0-9]{6}Z"));
  line.erase("time");
  EXPECT_EQ(line, json({{"level", "info"},
                        {"process", "prefill"},
                        {"event", "prefill_done"},
                        {"request_id", "r1"},
                        {"tokens", 7},
                        {"seconds", 0.5},
                        {"cached", true}}));
}

TEST(LogTest, TextOfAnyKindStaysOneLine) {
  const std::string text = std::string("a\"b\\c\nd\te\x01\x7f") + '\0' + "\xFF\xC3\xA9 {} %s";
  const std::vector<json> lines = Logged([&] {
    Log(LogLevel::kError, "odd", {{"text", std::string_view(text)}});
  });
  ASSERT_EQ(lines.size(), 1U);
  const std::string replaced =
      std::string("a\"b\\c\nd\te\x01\x7f") + '\0' + "\xEF\xBF\xBD\xC3\xA9 {} %s";
  EXPECT_EQ(lines[0]["text"].get<std::string>(), replaced);
}

TEST(LogTest, NumbersThatJsonLacksAreNull) {
  const std::vector<json> lines = Logged([] {
    Log(LogLevel::kError, "odd", {{"value", std::nan("")}});
  });
  EXPECT_TRUE(lines.at(0)["value"].is_null());
}

TEST(LogTest, LowerLevelsAreNotWritten) {
  const std::vector<json> lines = Logged([] {
    ConfigureLog("cached", LogLevel::kWarning);
    for (const LogLevel level :
         {LogLevel::kDebug, LogLevel::kInfo, LogLevel::kWarning, LogLevel::kError}) {
      Log(level, "event");
    }
  });
  std::vector<std::string> levels;
  for (const json& line : lines) levels.push_back(line["level"]);
  EXPECT_THAT(levels, ElementsAre("warning", "error"));
}

TEST(LogTest, AStandardErrorThatNobodyReadsStallsNoCaller) {
  ::signal(SIGPIPE, SIG_IGN);
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const int saved = ::dup(STDERR_FILENO), nowhere = ::open("/dev/null", O_WRONLY);
  ::dup2(ends[1], STDERR_FILENO);
  ConfigureLog("cached", LogLevel::kInfo);
  const std::string kilobyte(1000, 'x');
  for (int i = 0; i < 20'000; ++i) {
    Log(LogLevel::kInfo, "event", {{"text", std::string_view(kilobyte)}});
  }
  // Still here, though a pipe holds 64 kB. What waits goes elsewhere, so that the log can be
  // closed.
  ::dup2(nowhere, STDERR_FILENO);
  ::close(ends[1]);
  ::close(ends[0]);
  CloseLog();
  ::dup2(saved, STDERR_FILENO);
  ::close(saved);
  ::close(nowhere);
}

TEST(LogTest, LevelsHaveNames) {
  LogLevel level = LogLevel::kInfo;
  EXPECT_TRUE(ParseLogLevel("debug", level));
  EXPECT_EQ(level, LogLevel::kDebug);
  EXPECT_TRUE(ParseLogLevel("warning", level));
  EXPECT_EQ(level, LogLevel::kWarning);
  EXPECT_FALSE(ParseLogLevel("Warning", level));
  EXPECT_FALSE(ParseLogLevel("", level));
  EXPECT_EQ(level, LogLevel::kWarning);
}

}  // namespace
}  // namespace maskkv::telemetry
