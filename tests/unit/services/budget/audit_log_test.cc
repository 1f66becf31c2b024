// SPDX-License-Identifier: Apache-2.0
#include "services/budget/audit_log.h"

#include <gtest/gtest.h>

#include <sstream>
#include <string>
#include <vector>

#include "core/base/file.h"
#include "nlohmann/json.hpp"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_folder.h"

namespace maskkv::budget_service {
namespace {

using maskkv::testing::TempFolder;

TEST(AuditLogTest, AppendsOneObjectALineAlsoToAnOldFile) {
  const TempFolder folder;
  const std::string path = folder.File("audit.jsonl");
  for (const std::uint64_t generation : {1U, 2U}) {
    MASKKV_ASSERT_OK_AND_ASSIGN(AuditLog log, AuditLog::Open(path));
    log.Append({{"acme", "unix", "more room \"for\" \xc3\xa9 and \xff"},
                "applied",
                generation,
                generation + 1,
                budget::Policy{}});
  }
  MASKKV_ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(path, 1 << 20));
  std::istringstream lines(text);
  std::vector<nlohmann::json> records;
  for (std::string line; std::getline(lines, line);) records.push_back(nlohmann::json::parse(line));
  ASSERT_EQ(records.size(), 2U);
  EXPECT_EQ(records[1]["event"], "set_policy");
  EXPECT_EQ(records[1]["result"], "applied");
  EXPECT_EQ(records[1]["tenant"], "acme");
  EXPECT_EQ(records[1]["peer"], "unix");
  EXPECT_EQ(records[1]["generation_before"], 2);
  EXPECT_EQ(records[1]["generation_after"], 3);
  EXPECT_EQ(records[1]["policy"]["budget"], 64);
  EXPECT_EQ(records[1]["time"].get<std::string>().size(), 20U);
}

TEST(AuditLogTest, AFileThatCannotBeOpenedIsNamed) {
  EXPECT_THAT(AuditLog::Open("/no/such/folder/audit.jsonl"),
              maskkv::testing::StatusIs(absl::StatusCode::kNotFound,
                                        ::testing::StartsWith("/no/such/folder/audit.jsonl: ")));
}

TEST(AuditLogTest, WithoutAFileItOnlyLogs) {
  MASKKV_ASSERT_OK_AND_ASSIGN(AuditLog log, AuditLog::Open(""));
  log.Append({});
}

}  // namespace
}  // namespace maskkv::budget_service
