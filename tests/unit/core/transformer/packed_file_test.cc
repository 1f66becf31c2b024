// SPDX-License-Identifier: Apache-2.0
//
// The file of packed matrices by itself: sections of several chunks, whose every byte is checked.
#include "core/transformer/packed_file.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <random>
#include <vector>

#include "tests/support/temp_folder.h"

namespace maskkv::transformer {
namespace {

using maskkv::testing::TempFolder;

class PackedFileTest : public ::testing::Test {
 protected:
  PackedFileTest() {
    std::minstd_rand random(1);
    for (const std::int64_t bytes :
         {std::int64_t{5}, 2 * PackedPlan::kChunk + 77, std::int64_t{1}, PackedPlan::kChunk}) {
      plan_.Add("a", "layout", bytes);
      std::ranges::generate(sections_.emplace_back(static_cast<std::size_t>(bytes)),
                            [&] { return static_cast<std::byte>(random()); });
    }
  }

  void Write() {
    auto writer = PackedFileWriter::Create(path_ + ".tmp", plan_);
    ASSERT_TRUE(writer.ok()) << writer.status();
    for (const std::size_t section : {2U, 0U, 3U, 1U}) {
      ASSERT_TRUE(writer->Write(section, sections_[section].data(), pool_).ok());
    }
    ASSERT_TRUE(writer->Finish(source_, path_).ok());
  }

  kernels::WorkerPool pool_{2};
  TempFolder folder_;
  std::string path_ = folder_.File("weights.packed");
  PackedPlan plan_{"model x"};
  PackedSource source_{.stamp = {std::byte{1}, std::byte{2}}, .content = {std::byte{3}}};
  std::vector<std::vector<std::byte>> sections_;
};

TEST_F(PackedFileTest, GivesBackWhatWasWritten) {
  Write();
  const auto file = PackedFile::Open(path_, plan_, pool_);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->source().stamp, source_.stamp);
  EXPECT_EQ(file->source().content, source_.content);
  std::int64_t end = plan_.PayloadOffset();
  for (std::size_t i = 0; i < sections_.size(); ++i) {
    EXPECT_GE(plan_.Offset(i), end);
    EXPECT_EQ(plan_.Offset(i) % 4096, 0);
    end = plan_.Offset(i) + plan_.bytes(i);
    EXPECT_EQ(std::memcmp(file->At(plan_.Offset(i)), sections_[i].data(), sections_[i].size()), 0);
  }
  EXPECT_LE(end, plan_.file_bytes());
}

TEST_F(PackedFileTest, FindsADamagedByteInEveryChunk) {
  Write();
  std::fstream file(path_ + "2", std::ios::binary | std::ios::out);
  file << std::ifstream(path_, std::ios::binary).rdbuf();
  for (std::size_t i = 0; i < sections_.size(); ++i) {
    for (const std::int64_t at : {std::int64_t{0}, PackedPlan::kChunk - 1, PackedPlan::kChunk,
                                  2 * PackedPlan::kChunk, plan_.bytes(i) - 1}) {
      if (at >= plan_.bytes(i)) continue;
      const auto good = std::to_integer<char>(sections_[i][static_cast<std::size_t>(at)]);
      file.seekp(plan_.Offset(i) + at).put(static_cast<char>(good ^ 64)).flush();
      EXPECT_EQ(PackedFile::Open(path_ + "2", plan_, pool_).status().code(),
                absl::StatusCode::kDataLoss);
      file.seekp(plan_.Offset(i) + at).put(good).flush();
    }
  }
  EXPECT_TRUE(PackedFile::Open(path_ + "2", plan_, pool_).ok());
}

TEST_F(PackedFileTest, APlanOfOtherNamesSizesOrLayoutsRefusesIt) {
  Write();
  const auto planned = [&](const std::string& model, const std::string& layout, std::int64_t more) {
    PackedPlan plan(model);
    for (std::size_t i = 0; i < sections_.size(); ++i) {
      plan.Add("a", layout, plan_.bytes(i) + (i == 1 ? more : 0));
    }
    return plan;
  };
  EXPECT_EQ(planned("model x", "layout", 0).Key(), plan_.Key());
  for (const PackedPlan& other :
       {planned("model y", "layout", 0), planned("model x", "lavout", 0),
        planned("model x", "layout", 1), planned("model x", "layout", 1 << 20)}) {
    EXPECT_NE(other.Key(), plan_.Key());
    EXPECT_EQ(PackedFile::Open(path_, other, pool_).status().code(),
              absl::StatusCode::kFailedPrecondition);
  }
  EXPECT_EQ(PackedFile::Open(path_ + "none", plan_, pool_).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_FALSE(PackedFile::Open(folder_.path(), plan_, pool_).ok());
}

}  // namespace
}  // namespace maskkv::transformer
