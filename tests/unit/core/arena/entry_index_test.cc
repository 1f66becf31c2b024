// SPDX-License-Identifier: Apache-2.0
#include "core/arena/entry_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "tests/support/entry_bytes.h"
#include "tests/support/seed.h"
#include "tests/support/status_matchers.h"

namespace maskkv::arena::entry_index_test {
namespace {

using maskkv::testing::CheckIndex;
using maskkv::testing::EntryBytes;
using maskkv::testing::EntryContent;
using maskkv::testing::IsOk;
using ::testing::HasSubstr;

constexpr std::uint64_t kHuge = std::numeric_limits<std::uint64_t>::max();

EntryContent Content() {
  EntryContent content;
  content.shape = {.layers = 2, .kv_heads = 2, .head_dim = 4};
  content.pairs = {2, 3, 0, 4};
  content.metadata.epoch = 11;
  content.metadata.entry_id = 12;
  content.metadata.prompt_tokens = 20;
  content.metadata.document_tokens = 15;
  return content;
}

EntryBytes Valid() {
  std::mt19937_64 random(1);
  return EntryBytes(Content(), random);
}

TEST(ValidateEntry, ReadsBackWhatWasWritten) {
  EntryBytes entry = Valid();
  MASKKV_ASSERT_OK_AND_ASSIGN(const EntryIndex index,
                              ValidateEntry(entry.bytes(), entry.expectation()));
  CheckIndex(entry.bytes(), index);
  EXPECT_EQ(index.metadata, Content().metadata);
  EXPECT_EQ(index.shape, Content().shape);
  EXPECT_EQ(index.pairs, 9);
  EXPECT_EQ(index.payload_bytes, 9 * (2 * 4 * 4 + 4));
  EXPECT_EQ(index.total_bytes, entry.bytes().size());
  EXPECT_EQ(index.extents.size(), 2U);
  EXPECT_EQ(index.heads.size(), 4U);
}

struct Damage {
  std::string name;
  std::function<void(EntryBytes&)> inflict;
  absl::StatusCode code;
  std::string reason;
  std::string message;
};

std::string Reasoned(const Damage& damage, bool fix_checksums) {
  EntryBytes entry = Valid();
  const EntryExpectation expectation = entry.expectation();
  damage.inflict(entry);
  if (fix_checksums) entry.FixChecksums();
  const auto index = ValidateEntry(entry.bytes(), expectation);
  if (index.ok()) return damage.name + ": accepted";
  const absl::Status& status = index.status();
  if (status.code() == damage.code && ErrorReason(status) == damage.reason &&
      std::string(status.message()).find("entry: " + damage.message) == 0) {
    return "";
  }
  return damage.name + ": " + status.ToString();
}

constexpr auto kLost = absl::StatusCode::kDataLoss;
constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;

// Checksums are right in all of these, so that the check behind them speaks.
TEST(ValidateEntry, RefusesAHeaderThatIsWrong) {
  const auto header = [](auto field, auto value) {
    return [field, value](EntryBytes& entry) { entry.header().*field = value; };
  };
  using H = EntryHeader;
  const std::vector<Damage> damages = {
      {"magic", header(&H::magic, 1U), kLost, "BAD_HEADER", "magic"},
      {"version", header(&H::format_version, 1U), kPrecondition, "LAYOUT_MISMATCH", "layout"},
      {"header", header(&H::header_bytes, 256U), kPrecondition, "LAYOUT_MISMATCH", "layout"},
      {"hash", header(&H::layout_hash, 3U), kPrecondition, "LAYOUT_MISMATCH", "layout"},
      {"epoch", header(&H::epoch, 1U), absl::StatusCode::kAborted, "EPOCH_MOVED", "identity"},
      {"id", header(&H::entry_id, 1U), absl::StatusCode::kAborted, "EPOCH_MOVED", "identity"},
      {"model", [](EntryBytes& entry) { entry.header().model_fingerprint[5] ^= std::byte{1}; },
       kPrecondition, "MODEL_MISMATCH", "model"},
      {"reserved 0", header(&H::reserved0, 1U), kLost, "BAD_HEADER", "reserved"},
      {"reserved 1", header(&H::reserved1, 1U), kLost, "BAD_HEADER", "reserved"},
      {"total beyond", header(&H::total_bytes, kHuge - 63), kLost, "BAD_HEADER", "total_bytes"},
      {"total odd", [](EntryBytes& entry) { entry.header().total_bytes -= 8; }, kLost, "BAD_HEADER",
       "total_bytes"},
      {"total short", [](EntryBytes& entry) { entry.header().total_bytes -= 64; }, kLost,
       "BAD_HEADER", "extent bytes"},
      {"total none", header(&H::total_bytes, 0U), kLost, "BAD_HEADER", "layers * kv_heads"},
      {"layers none", header(&H::layers, 0U), kLost, "BAD_HEADER", "layers:"},
      {"layers negative", header(&H::layers, ~0U), kLost, "BAD_HEADER", "layers:"},
      {"layers huge", header(&H::layers, ~0U >> 1), kLost, "BAD_HEADER", "layers * kv_heads"},
      {"layers more", header(&H::layers, 3U), kLost, "BAD_HEADER", "payload_offset"},
      {"layers fewer", header(&H::layers, 1U), kLost, "BAD_HEADER", "payload_offset"},
      {"heads none", header(&H::kv_heads, 0U), kLost, "BAD_HEADER", "kv_heads"},
      {"heads huge", header(&H::kv_heads, ~0U >> 1), kLost, "BAD_HEADER", "layers * kv_heads"},
      {"width none", header(&H::head_dim, 0U), kLost, "BAD_HEADER", "head_dim"},
      {"width negative", header(&H::head_dim, ~0U), kLost, "BAD_HEADER", "head_dim"},
      {"width huge", header(&H::head_dim, ~0U >> 1), kLost, "BAD_HEADER", "head pairs"},
      {"dtype none", header(&H::dtype, 0U), kLost, "BAD_HEADER", "dtype"},
      {"dtype other", header(&H::dtype, 4U), kLost, "BAD_HEADER", "dtype"},
      {"pairs", header(&H::pairs, 10U), kLost, "BAD_HEADER", "pairs"},
      {"prompt huge", header(&H::prompt_tokens, kHuge), kLost, "BAD_HEADER", "prompt_tokens"},
      {"prompt short",
       [](EntryBytes& entry) {
         entry.header().prompt_tokens = 4;  // enough for four pairs, not for their positions
         entry.header().document_tokens = 0;
       },
       kLost, "BAD_HEADER", "positions"},
      {"prompt shorter than pairs",
       [](EntryBytes& entry) { entry.header().prompt_tokens = entry.header().document_tokens = 3; },
       kLost, "BAD_HEADER", "head pairs"},
      {"document", header(&H::document_tokens, 21U), kLost, "BAD_HEADER", "document_tokens"},
      {"masks", header(&H::masks, kHuge), kLost, "BAD_HEADER", "masks"},
      {"suffix huge", header(&H::suffix_tokens, kHuge), kLost, "BAD_HEADER", "suffix_tokens"},
      {"masks before a suffix",
       [](EntryBytes& entry) {
         entry.header().suffix_tokens = 1;
         entry.header().masks = std::uint64_t{1} << 31;
       },
       kLost, "BAD_HEADER", "masks"},
      {"budget", header(&H::budget, kHuge), kLost, "BAD_HEADER", "budget"},
      {"mass over one", header(&H::kept_mass, 1.5), kLost, "BAD_HEADER", "kept_mass"},
      {"mass negative", header(&H::kept_mass, -0.5), kLost, "BAD_HEADER", "kept_mass"},
      {"mass none", header(&H::kept_mass, std::nan("")), kLost, "BAD_HEADER", "kept_mass"},
      {"rope scale below one", header(&H::rope_scale, 0.5), kLost, "BAD_HEADER", "rope_scale"},
      {"rope scale none", header(&H::rope_scale, std::nan("")), kLost, "BAD_HEADER", "rope_scale"},
      {"rope scale infinite", header(&H::rope_scale, std::numeric_limits<double>::infinity()),
       kLost, "BAD_HEADER", "rope_scale"},
      {"extents none", header(&H::extents, 0U), kLost, "BAD_HEADER", "extents"},
      {"extents many", header(&H::extents, ~0U), kLost, "BAD_HEADER", "extents"},
      {"extents one", header(&H::extents, 1U), kLost, "BAD_HEADER", "heads_offset"},
      {"extent table", header(&H::extents_offset, 384U), kLost, "BAD_HEADER", "extents_offset"},
      {"head table", header(&H::heads_offset, kHuge), kLost, "BAD_HEADER", "heads_offset"},
      {"payload", header(&H::payload_offset, kHuge - 63), kLost, "BAD_HEADER", "payload_offset"},
  };
  for (const Damage& damage : damages) EXPECT_EQ(Reasoned(damage, true), "");
}

TEST(ValidateEntry, RefusesTablesThatAreWrong) {
  using E = ExtentRecord;
  using H = HeadRecord;
  const auto extent = [](auto field, auto value) {
    return [field, value](EntryBytes& entry) { entry.extent(1).*field = value; };
  };
  const auto head = [](auto field, std::uint64_t value) {
    return [field, value](EntryBytes& entry) { entry.head(1).*field = value; };
  };
  const auto moved = [](auto field, std::uint64_t by) {
    return [field, by](EntryBytes& entry) { entry.head(1).*field += by; };
  };
  const std::vector<Damage> damages = {
      {"no layers", extent(&E::layers, 0U), kLost, "BAD_HEADER", "extent layers"},
      {"layers beyond", extent(&E::layers, 2U), kLost, "BAD_HEADER", "extent layers"},
      {"layers wrap", extent(&E::layers, ~0U), kLost, "BAD_HEADER", "extent layers"},
      {"layer beyond", extent(&E::first_layer, 2U), kLost, "BAD_HEADER", "extent layers"},
      {"layer huge", extent(&E::first_layer, ~0U), kLost, "BAD_HEADER", "extent layers"},
      {"no heads", extent(&E::heads, 0U), kLost, "BAD_HEADER", "extent heads"},
      {"heads wrap", extent(&E::heads, ~0U), kLost, "BAD_HEADER", "extent heads"},
      {"head beyond", extent(&E::first_head, 1U), kLost, "BAD_HEADER", "extent heads"},
      {"heads fewer", extent(&E::heads, 1U), kLost, "BAD_HEADER", "extents"},
      {"layer twice", extent(&E::first_layer, 0U), kLost, "BAD_HEADER", "extents"},
      {"no shards", extent(&E::shards, 0U), kLost, "BAD_HEADER", "extent shard"},
      {"shards differ", extent(&E::shards, 2U), kLost, "BAD_HEADER", "extent shard"},
      {"shard beyond", extent(&E::shard, 1U), kLost, "BAD_HEADER", "extent shard"},
      {"extent overlaps", extent(&E::offset, 320U), kLost, "BAD_HEADER", "extent offset"},
      {"extent huge", extent(&E::offset, kHuge - 63), kLost, "BAD_HEADER", "extent offset"},
      {"bytes huge", extent(&E::bytes, kHuge - 63), kLost, "BAD_HEADER", "extent bytes"},
      {"bytes odd", [](EntryBytes& entry) { entry.extent(1).bytes -= 32; }, kLost, "BAD_HEADER",
       "extent bytes"},
      {"bytes short", [](EntryBytes& entry) { entry.extent(1).bytes -= 64; }, kLost, "BAD_HEADER",
       "head "},
      {"keys huge", head(&H::keys, kHuge - 63), kLost, "BAD_HEADER", "head keys"},
      {"keys in the header", head(&H::keys, 0), kLost, "BAD_HEADER", "head keys"},
      {"keys odd", moved(&H::keys, 4), kLost, "BAD_HEADER", "head keys"},
      {"keys on values", moved(&H::keys, 64), kLost, "BAD_HEADER", "head values"},
      {"keys on the head before", moved(&H::keys, kHuge - 63), kLost, "BAD_HEADER", "head keys"},
      {"values huge", head(&H::values, kHuge - 63), kLost, "BAD_HEADER", "head values"},
      {"values odd", moved(&H::values, 32), kLost, "BAD_HEADER", "head values"},
      {"values in another extent", moved(&H::values, 256), kLost, "BAD_HEADER", "head values"},
      {"positions huge", head(&H::positions, kHuge - 63), kLost, "BAD_HEADER", "head positions"},
      {"positions odd", moved(&H::positions, 2), kLost, "BAD_HEADER", "head positions"},
      {"pairs wrap", head(&H::pairs, kHuge), kLost, "BAD_HEADER", "head pairs"},
      {"pairs wrap a product", head(&H::pairs, (std::uint64_t{1} << 60) + 1), kLost, "BAD_HEADER",
       "head pairs"},
      {"pairs more", head(&H::pairs, 20), kLost, "BAD_HEADER", "head pairs"},
      {"pairs fewer", head(&H::pairs, 2), kLost, "BAD_HEADER", "pairs"},
      {"scales of f32", head(&H::scales, 64), kLost, "BAD_HEADER", "head scales"},
  };
  for (const Damage& damage : damages) EXPECT_EQ(Reasoned(damage, true), "");
}

TEST(ValidateEntry, RefusesPositionsThatDoNotAscendWithinThePrompt) {
  const auto position = [](std::size_t i, std::int32_t value) {
    return [i, value](EntryBytes& entry) {
      entry.At<std::int32_t>(entry.head(3).positions + 4 * i) = value;
    };
  };
  const std::vector<Damage> damages = {
      {"negative", position(0, -1), kLost, "BAD_HEADER", "positions"},
      {"beyond", position(3, 20), kLost, "BAD_HEADER", "positions"},
      {"twice",
       [](EntryBytes& entry) {
         const std::uint64_t at = entry.head(3).positions;
         entry.At<std::int32_t>(at + 4) = entry.At<std::int32_t>(at);
       },
       kLost, "BAD_HEADER", "positions"},
      {"falling", position(2, 0), kLost, "BAD_HEADER", "positions"},
  };
  for (const Damage& damage : damages) EXPECT_EQ(Reasoned(damage, true), "");
}

TEST(ValidateEntry, RefusesChecksumsThatDoNotMatch) {
  const std::vector<Damage> damages = {
      {"header", [](EntryBytes& entry) { ++entry.header().header_checksum; }, kLost, "CHECKSUM",
       "header checksum"},
      {"tables", [](EntryBytes& entry) { entry.head(2).keys += 64; }, kLost, "CHECKSUM",
       "tables checksum"},
      {"keys", [](EntryBytes& entry) { entry.bytes()[entry.head(0).keys] ^= std::byte{1}; }, kLost,
       "CHECKSUM", "extent checksum"},
      {"padding", [](EntryBytes& entry) { entry.bytes().back() = std::byte{1}; }, kLost, "CHECKSUM",
       "extent checksum"},
  };
  for (const Damage& damage : damages) EXPECT_EQ(Reasoned(damage, false), "");
}

TEST(ValidateEntry, RefusesMemoryOfAnotherSize) {
  EntryBytes entry = Valid();
  const EntryExpectation& expectation = entry.expectation();
  for (std::size_t size = 0; size < entry.bytes().size(); ++size) {
    const auto index = ValidateEntry(entry.bytes().first(size), expectation);
    EXPECT_EQ(index.status().code(), kLost) << size;
    EXPECT_EQ(ErrorReason(index.status()), "BAD_HEADER") << size;
  }
  EntryExpectation other = expectation;
  other.bytes = 2 * kEntryPage;
  EXPECT_THAT(ValidateEntry(entry.bytes(), other).status().ToString(), HasSubstr("8192 bytes"));
  other.bytes = kEntryPage;  // the same page
  EXPECT_THAT(ValidateEntry(entry.bytes(), other), IsOk());
  other.bytes = 0;
  EXPECT_THAT(ValidateEntry(entry.bytes(), other), IsOk());
  kernels::AlignedBuffer<std::byte> shifted(static_cast<std::int64_t>(entry.bytes().size() + 8));
  std::ranges::copy(entry.bytes(), shifted.data() + 8);
  EXPECT_EQ(ValidateEntry(shifted.span().subspan(8), expectation).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(ValidateEntry, AcceptsTheZeroRestOfAPageAndNothingElseBehindTheEntry) {
  EntryBytes entry = Valid();
  std::vector<std::byte> longer(entry.bytes().begin(), entry.bytes().end());
  longer.resize(kEntryPage);
  EntryBytes page(longer);
  EXPECT_THAT(ValidateEntry(page.bytes(), entry.expectation()), IsOk());
  page.bytes().back() = std::byte{1};
  EXPECT_EQ(ErrorReason(ValidateEntry(page.bytes(), entry.expectation()).status()), "BAD_HEADER");
  longer.resize(entry.bytes().size() + kEntryPage);
  EntryExpectation any = entry.expectation();
  any.bytes = 0;
  EXPECT_EQ(ErrorReason(ValidateEntry(EntryBytes(longer).bytes(), any).status()), "BAD_HEADER");
}

TEST(ValidateEntry, TakesAnyModelWhereNoneIsExpected) {
  EntryBytes entry = Valid();
  EntryExpectation expectation = entry.expectation();
  expectation.model_fingerprint.reset();
  EXPECT_THAT(ValidateEntry(entry.bytes(), expectation), IsOk());
}

// The same heads under another extent table: rectangles, each with its checksum.
EntryBytes Divide(EntryBytes& entry, const std::vector<ExtentRecord>& rectangles) {
  const EntryHeader header = entry.header();
  const TableOffsets at =
      PlaceTables(rectangles.size(), std::uint64_t{header.layers} * header.kv_heads);
  std::vector<std::byte> bytes(at.payload);
  std::vector<HeadRecord> heads(std::uint64_t{header.layers} * header.kv_heads);
  std::vector<ExtentRecord> extents = rectangles;
  const auto append = [&](std::uint64_t offset, std::uint64_t count) {
    const std::uint64_t to = bytes.size();
    bytes.insert(bytes.end(), entry.bytes().begin() + static_cast<std::ptrdiff_t>(offset),
                 entry.bytes().begin() + static_cast<std::ptrdiff_t>(offset + count));
    bytes.resize(AlignUp(bytes.size()));
    return to;
  };
  for (ExtentRecord& extent : extents) {
    extent.offset = bytes.size();
    for (std::uint32_t layer = extent.first_layer; layer < extent.first_layer + extent.layers;
         ++layer) {
      for (std::uint32_t head = extent.first_head; head < extent.first_head + extent.heads;
           ++head) {
        const std::size_t i = layer * header.kv_heads + head;
        const HeadRecord from = entry.head(i);
        heads[i] = {append(from.keys, from.pairs * header.head_dim * 4),
                    append(from.values, from.pairs * header.head_dim * 4),
                    append(from.positions, from.pairs * 4), from.pairs, 0};
      }
    }
    extent.bytes = bytes.size() - extent.offset;
  }
  EntryBytes divided(bytes);
  std::memcpy(divided.bytes().data(), &header, sizeof(header));
  divided.header().extents = static_cast<std::uint32_t>(extents.size());
  divided.header().extents_offset = at.extents;
  divided.header().heads_offset = at.heads;
  divided.header().payload_offset = at.payload;
  divided.header().total_bytes = bytes.size();
  std::memcpy(divided.bytes().data() + at.extents, extents.data(),
              extents.size() * sizeof(ExtentRecord));
  std::memcpy(divided.bytes().data() + at.heads, heads.data(), heads.size() * sizeof(HeadRecord));
  divided.FixChecksums();
  return divided;
}

TEST(ValidateEntry, AcceptsAnyDivisionOfTheHeadsIntoExtents) {
  EntryBytes entry = Valid();
  const auto rectangle = [](std::uint32_t first_layer, std::uint32_t layers,
                            std::uint32_t first_head, std::uint32_t heads, std::uint32_t shard,
                            std::uint32_t shards) {
    return ExtentRecord{first_layer, layers, first_head, heads, shard, shards, 0, 0, 0};
  };
  const std::vector<std::vector<ExtentRecord>> divisions = {
      {rectangle(0, 2, 0, 2, 0, 1)},                               // all in one
      {rectangle(0, 2, 0, 1, 0, 2), rectangle(0, 2, 1, 1, 1, 2)},  // two shards
      {rectangle(1, 1, 0, 2, 0, 1), rectangle(0, 1, 0, 1, 0, 1),   // out of order
       rectangle(0, 1, 1, 1, 0, 1)},
  };
  for (const auto& division : divisions) {
    EntryBytes divided = Divide(entry, division);
    EntryExpectation expectation = entry.expectation();
    expectation.bytes = 0;
    MASKKV_ASSERT_OK_AND_ASSIGN(const EntryIndex index,
                                ValidateEntry(divided.bytes(), expectation));
    CheckIndex(divided.bytes(), index);
    EXPECT_EQ(index.pairs, 9);
  }
  EntryBytes missing = Divide(entry, {rectangle(0, 1, 0, 2, 0, 1)});
  EntryExpectation expectation = entry.expectation();
  expectation.bytes = 0;
  EXPECT_THAT(ValidateEntry(missing.bytes(), expectation).status().ToString(),
              HasSubstr("extents: expected 4 heads, found 2"));
}

TEST(ValidateEntry, RefusesEveryByteThatIsChanged) {
  std::mt19937_64 random(maskkv::testing::Seed());
  for (int run = 0; run < 20; ++run) {
    EntryBytes entry(maskkv::testing::RandomContent(random), random);
    ASSERT_THAT(ValidateEntry(entry.bytes(), entry.expectation()), IsOk());
    for (std::size_t i = 0; i < entry.bytes().size(); ++i) {
      const std::byte flip{static_cast<unsigned char>(1U << random() % 8)};
      entry.bytes()[i] ^= flip;
      EXPECT_FALSE(ValidateEntry(entry.bytes(), entry.expectation()).ok()) << "byte " << i;
      entry.bytes()[i] ^= flip;
    }
  }
}

// Whoever can write an entry can make its checksums right: what is accepted then must still be
// safe.
TEST(ValidateEntry, AcceptsNothingUnsafeBehindRightChecksums) {
  std::mt19937_64 random(maskkv::testing::Seed() + 1);
  int accepted = 0;
  for (int run = 0; run < 20000; ++run) {
    EntryBytes entry(maskkv::testing::RandomContent(random), random);
    const std::size_t tables = entry.header().payload_offset;
    for (std::uint64_t flips = 1 + random() % 3; flips > 0; --flips) {
      const std::size_t limit = random() % 2 == 0 ? tables : entry.bytes().size();
      entry.bytes()[32 + random() % (limit - 32)] = static_cast<std::byte>(random());
    }
    if (random() % 8 != 0) entry.FixChecksums();
    EntryExpectation expectation = entry.expectation();
    expectation.verify_checksums = random() % 2 == 0;
    const auto index = ValidateEntry(entry.bytes(), expectation);
    if (!index.ok()) continue;
    ++accepted;
    CheckIndex(entry.bytes(), *index);
  }
  EXPECT_GT(accepted, 100);  // changes of keys, values and digests
}

}  // namespace
}  // namespace maskkv::arena::entry_index_test
