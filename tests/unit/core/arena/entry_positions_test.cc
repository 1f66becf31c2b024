// SPDX-License-Identifier: Apache-2.0
//
// Where pairs of a prompt may lie that goes on after the answer.
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <set>

#include "core/arena/entry_index.h"
#include "tests/support/entry_bytes.h"

namespace maskkv::arena {
namespace {

using maskkv::testing::EntryBytes;
using maskkv::testing::EntryContent;

// Pairs of the prompt after the answer lie behind the answer's positions, never among them.
TEST(ValidateEntry, PositionsAreThePromptsOnBothSidesOfTheAnswer) {
  std::mt19937_64 random(1);
  EntryContent content;
  content.shape = {.layers = 2, .kv_heads = 2, .head_dim = 4};
  content.pairs = {2, 3, 0, 4};
  content.metadata.epoch = 11;
  content.metadata.entry_id = 12;
  content.metadata.prompt_tokens = 20;
  content.metadata.document_tokens = 15;
  EntryBytes entry(content, random);
  const auto read = [&](std::uint64_t prompt, std::uint64_t masks, std::uint64_t suffix) {
    EntryBytes copy(entry.bytes());
    copy.header().prompt_tokens = prompt;
    copy.header().document_tokens = 0;
    copy.header().masks = masks;
    copy.header().suffix_tokens = suffix;
    copy.FixChecksums();
    EntryExpectation expectation = entry.expectation();
    return ValidateEntry(copy.bytes(), expectation).status();
  };
  EXPECT_TRUE(read(20, 5, 0).ok());
  EXPECT_TRUE(read(0, 0, 20).ok());
  std::set<std::int32_t> taken;
  const auto index = ValidateEntry(entry.bytes(), entry.expectation());
  ASSERT_TRUE(index.ok());
  for (const HeadRecord& head : index->heads) {
    for (std::uint64_t i = 0; i < head.pairs; ++i) {
      std::int32_t position = 0;
      std::memcpy(&position, entry.bytes().data() + head.positions + 4 * i, 4);
      taken.insert(position);
    }
  }
  const auto last = static_cast<std::uint64_t>(*taken.rbegin());
  for (std::uint64_t before = 0; before <= last; ++before) {
    const bool free = !taken.contains(static_cast<std::int32_t>(before));
    EXPECT_EQ(read(before, 1, last - before).ok(), free) << before;
    EXPECT_FALSE(read(before, 0, last - before).ok()) << before;
    EXPECT_TRUE(read(before, 0, last - before + 1).ok()) << before;
  }
}

}  // namespace
}  // namespace maskkv::arena
