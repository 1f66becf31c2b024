// SPDX-License-Identifier: Apache-2.0
//
// Entries of int8 pairs: what their scales may be and where they may lie.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <string>

#include "core/arena/entry_index.h"
#include "core/base/error.h"
#include "tests/support/entry_bytes.h"

namespace maskkv::arena::entry_scales_test {
namespace {

using maskkv::testing::EntryBytes;
using maskkv::testing::EntryContent;

EntryBytes Valid() {
  std::mt19937_64 random(1);
  EntryContent content;
  content.shape = {.layers = 2, .kv_heads = 2, .head_dim = 4, .dtype = kernels::DType::kInt8};
  content.pairs = {2, 3, 0, 4};
  content.metadata.epoch = 11;
  content.metadata.entry_id = 12;
  content.metadata.prompt_tokens = 20;
  return EntryBytes(content, random);
}

// What a reader says of a damaged entry whose checksums are right.
std::string Said(const std::function<void(EntryBytes&)>& damage) {
  EntryBytes entry = Valid();
  const EntryExpectation expectation = entry.expectation();
  damage(entry);
  entry.FixChecksums();
  const absl::Status status = ValidateEntry(entry.bytes(), expectation).status();
  if (ErrorReason(status) != "BAD_HEADER") return status.ToString();
  return std::string(status.message().substr(0, status.message().find(": expected")));
}

TEST(EntryScales, AreWhereTheyWereWritten) {
  EntryBytes entry = Valid();
  const absl::StatusOr<EntryIndex> index = ValidateEntry(entry.bytes(), entry.expectation());
  ASSERT_TRUE(index.ok()) << index.status();
  maskkv::testing::CheckIndex(entry.bytes(), *index);
  EXPECT_EQ(index->shape.dtype, kernels::DType::kInt8);
  EXPECT_EQ(index->payload_bytes, 9 * (2 * (4 + 4) + 4));
}

TEST(EntryScales, MustBeFiniteNumbersThatAProductIsGoodWith) {
  const auto scale = [](std::size_t i, float value) {
    return Said([&](EntryBytes& entry) { entry.At<float>(entry.head(3).scales + 4 * i) = value; });
  };
  const std::string refused = "entry: scales";
  EXPECT_EQ(scale(0, std::nanf("")), refused);
  EXPECT_EQ(scale(3, std::numeric_limits<float>::infinity()), refused);  // the last key's
  EXPECT_EQ(scale(4, -1.0F), refused);                                   // the first value's
  EXPECT_EQ(scale(7, 0.0F), refused);
  EXPECT_EQ(scale(5, std::numeric_limits<float>::denorm_min()), refused);
  EXPECT_EQ(scale(5, std::numeric_limits<float>::min()), "OK");
  EXPECT_EQ(scale(6, std::numeric_limits<float>::max()), "OK");
}

TEST(EntryScales, MustLieBetweenValuesAndPositions) {
  const auto record = [](const std::function<void(HeadRecord&)>& change) {
    return Said([&](EntryBytes& entry) { change(entry.head(1)); });
  };
  constexpr std::uint64_t kHuge = std::numeric_limits<std::uint64_t>::max() - 63;
  const std::string refused = "entry: head scales";
  EXPECT_EQ(record([](HeadRecord& head) { head.scales = 0; }), refused);
  EXPECT_EQ(record([](HeadRecord& head) { head.scales = kHuge; }), refused);
  EXPECT_EQ(record([](HeadRecord& head) { head.scales += 4; }), refused);
  EXPECT_EQ(record([](HeadRecord& head) { head.scales -= 64; }), refused);   // on values
  EXPECT_EQ(record([](HeadRecord& head) { head.scales += 512; }), refused);  // another extent's
  EXPECT_EQ(record([](HeadRecord& head) { head.scales += 64; }), "entry: head positions");
  EXPECT_EQ(record([](HeadRecord& head) { head.positions -= 64; }), "entry: head positions");
}

TEST(EntryScales, AreOfInt8Alone) {
  for (const std::uint32_t dtype : {kDtypeF32, kDtypeBf16}) {
    const std::string said = Said([&](EntryBytes& entry) { entry.header().dtype = dtype; });
    EXPECT_EQ(said, "entry: head scales") << dtype;
  }
}

TEST(EntryScales, LeaveAnEntryOfWideHeadsLittleMoreThanHalfOfBf16WithTablesAndPadding) {
  const auto bytes = [](kernels::DType dtype) {
    std::mt19937_64 random(1);
    EntryContent content;
    content.shape = {.layers = 2, .kv_heads = 4, .head_dim = 128, .dtype = dtype};
    content.pairs.assign(8, 32);
    content.metadata.prompt_tokens = 200;
    return static_cast<double>(EntryBytes(content, random).bytes().size());
  };
  EXPECT_LE(bytes(kernels::DType::kInt8), 0.53 * bytes(kernels::DType::kBF16));
}

TEST(EntryScales, AreLookedAtWithoutTheChecksumsToo) {
  EntryBytes entry = Valid();
  EntryExpectation expectation = entry.expectation();
  expectation.verify_checksums = false;
  EXPECT_TRUE(ValidateEntry(entry.bytes(), expectation).ok());
  entry.At<float>(entry.head(0).scales) = std::nanf("");
  EXPECT_EQ(ErrorReason(ValidateEntry(entry.bytes(), expectation).status()), "BAD_HEADER");
}

}  // namespace
}  // namespace maskkv::arena::entry_scales_test
