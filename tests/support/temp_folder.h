// SPDX-License-Identifier: Apache-2.0
//
// An empty folder of a test's own, removed with all it holds.
#ifndef MASKKV_TESTS_SUPPORT_TEMP_FOLDER_H_
#define MASKKV_TESTS_SUPPORT_TEMP_FOLDER_H_

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <string>

namespace maskkv::testing {

class TempFolder {
 public:
  TempFolder() : path_(std::filesystem::temp_directory_path().string() + "/maskkv_XXXXXX") {
    EXPECT_NE(::mkdtemp(path_.data()), nullptr);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  const std::string& path() const { return path_; }
  std::string File(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace maskkv::testing

#endif  // MASKKV_TESTS_SUPPORT_TEMP_FOLDER_H_
