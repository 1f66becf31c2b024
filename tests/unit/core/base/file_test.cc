// SPDX-License-Identifier: Apache-2.0
#include "core/base/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/support/status_matchers.h"

namespace maskkv {
namespace {

using ::maskkv::testing::IsOk;
using ::maskkv::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class FileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/maskkv_file_XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::string Path(const std::string& name) const { return directory_ + "/" + name; }
  std::size_t Files() const {
    std::size_t count = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(directory_)) {
      ++count;
    }
    return count;
  }

 private:
  std::string directory_;
};

TEST_F(FileTest, WhatIsWrittenIsReadBackByteForByte) {
  std::string contents(100000, '\0');
  for (std::size_t i = 0; i < contents.size(); ++i) contents[i] = static_cast<char>(i * 31 % 251);
  ASSERT_THAT(WriteFileAtomically(Path("a"), contents), IsOk());
  MASKKV_ASSERT_OK_AND_ASSIGN(const std::string read, ReadFile(Path("a"), 100000));
  EXPECT_EQ(read, contents);
}

TEST_F(FileTest, AnEmptyFileIsEmpty) {
  ASSERT_THAT(WriteFileAtomically(Path("a"), ""), IsOk());
  MASKKV_ASSERT_OK_AND_ASSIGN(const std::string read, ReadFile(Path("a"), 0));
  EXPECT_EQ(read, "");
}

TEST_F(FileTest, WritingReplacesLeavesNoTemporaryFileAndIsReadableByAll) {
  ASSERT_THAT(WriteFileAtomically(Path("a"), "a longer first text"), IsOk());
  ASSERT_THAT(WriteFileAtomically(Path("a"), "second"), IsOk());
  MASKKV_ASSERT_OK_AND_ASSIGN(const std::string read, ReadFile(Path("a"), 100));
  EXPECT_EQ(read, "second");
  EXPECT_EQ(Files(), 1U);
  struct stat info {};
  ASSERT_EQ(::stat(Path("a").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0644U);
}

TEST_F(FileTest, AFileOfExactlyTheLimitIsReadAndOneByteMoreIsRefused) {
  ASSERT_THAT(WriteFileAtomically(Path("a"), "12345"), IsOk());
  EXPECT_THAT(ReadFile(Path("a"), 5), IsOk());
  EXPECT_THAT(ReadFile(Path("a"), 4), StatusIs(absl::StatusCode::kInvalidArgument,
                                               HasSubstr("expected at most 4 bytes, found more")));
}

TEST_F(FileTest, ReadingNamesThePathOfAMissingFile) {
  EXPECT_THAT(ReadFile(Path("missing"), 10),
              StatusIs(absl::StatusCode::kNotFound, StartsWith(Path("missing"))));
}

TEST_F(FileTest, ReadingRefusesADirectoryAndAPipe) {
  EXPECT_THAT(ReadFile(Path("."), 10),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("a regular file")));
  ASSERT_EQ(::mkfifo(Path("pipe").c_str(), 0600), 0);
  EXPECT_THAT(ReadFile(Path("pipe"), 10),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("a regular file")));
}

TEST_F(FileTest, AFailedWriteNamesThePathAndLeavesNothing) {
  EXPECT_THAT(WriteFileAtomically(Path("no/such"), "x"),
              StatusIs(absl::StatusCode::kNotFound, StartsWith(Path("no/such"))));
  std::filesystem::create_directory(Path("taken"));
  EXPECT_FALSE(WriteFileAtomically(Path("taken"), "x").ok());
  EXPECT_EQ(Files(), 1U);
}

TEST_F(FileTest, APathWithoutADirectoryIsRelativeToTheCurrentOne) {
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(Path(""));
  const absl::Status status = WriteFileAtomically("plain", "x");
  std::filesystem::current_path(before);
  EXPECT_THAT(status, IsOk());
  EXPECT_THAT(ReadFile(Path("plain"), 1), IsOk());
}

}  // namespace
}  // namespace maskkv
