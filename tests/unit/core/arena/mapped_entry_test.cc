// SPDX-License-Identifier: Apache-2.0
#include "core/arena/mapped_entry.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "core/arena/plane.h"
#include "core/base/error.h"
#include "tests/support/entry_bytes.h"
#include "tests/support/seed.h"
#include "tests/support/status_matchers.h"

namespace maskkv::arena {
namespace {

using maskkv::testing::EntryBytes;
using maskkv::testing::EntryContent;
using maskkv::testing::IsOk;

class MappedEntryTest : public ::testing::Test {
 protected:
  MappedEntryTest()
      : random_(maskkv::testing::Seed()),
        content_(maskkv::testing::RandomContent(random_)),
        bytes_(content_, random_) {}

  // A region that holds the entry, sealed.
  std::unique_ptr<Region> Sealed() {
    auto region = MakeMemfdPlane()->Allocate(bytes_.bytes().size() + 3 * kEntryPage);
    EXPECT_THAT(region, IsOk());
    auto mapping = (*region)->Map(Access::kWrite);
    EXPECT_THAT(mapping, IsOk());
    std::ranges::copy(bytes_.bytes(), mapping->memory().begin());
    mapping->Reset();
    EXPECT_THAT((*region)->Seal(bytes_.bytes().size()), IsOk());
    return *std::move(region);
  }
  static UniqueFd Share(const Region& region) {
    auto descriptor = region.Share();
    EXPECT_THAT(descriptor, IsOk());
    return *std::move(descriptor);
  }

  std::mt19937_64 random_;
  const EntryContent content_;
  EntryBytes bytes_;
};

TEST_F(MappedEntryTest, ReadsASealedRegionAfterItsOwnerHasDroppedIt) {
  auto region = Sealed();
  EntryExpectation expectation = bytes_.expectation();
  expectation.bytes = region->bytes();
  MASKKV_ASSERT_OK_AND_ASSIGN(const auto mapped, MappedEntry::Map(Share(*region), expectation));
  region.reset();
  MASKKV_ASSERT_OK_AND_ASSIGN(const auto over,
                              MappedEntry::Over(bytes_.bytes(), bytes_.expectation()));
  EXPECT_EQ(mapped->metadata(), content_.metadata);
  EXPECT_EQ(mapped->shape(), content_.shape);
  EXPECT_EQ(mapped->pairs(), content_.Pairs());
  EXPECT_EQ(mapped->bytes(), content_.Pairs() * content_.shape.PairBytes());
  EXPECT_EQ(mapped->ContentDigest(), over->ContentDigest());
  for (std::int64_t layer = 0; layer < content_.shape.layers; ++layer) {
    for (std::int64_t head = 0; head < content_.shape.kv_heads; ++head) {
      EXPECT_TRUE(std::ranges::equal(mapped->Positions(layer, head), over->Positions(layer, head)));
    }
  }
}

TEST_F(MappedEntryTest, TellsOnceWhenTheLastReferenceHasUnmapped) {
  const auto region = Sealed();
  int unmapped = 0;
  MASKKV_ASSERT_OK_AND_ASSIGN(auto entry, MappedEntry::Map(Share(*region), bytes_.expectation(),
                                                           [&unmapped] { ++unmapped; }));
  const void* const address = entry->Layer(0)[0].k;
  auto copy = entry;
  entry.reset();
  EXPECT_EQ(unmapped, 0);
  copy.reset();
  EXPECT_EQ(unmapped, 1);
  // msync of an address that is not mapped is ENOMEM.
  const auto page = reinterpret_cast<std::uintptr_t>(address) / kEntryPage * kEntryPage;
  EXPECT_EQ(::msync(reinterpret_cast<void*>(page), kEntryPage, MS_ASYNC), -1);
  EXPECT_EQ(errno, ENOMEM);
}

TEST_F(MappedEntryTest, RefusesMemoryThatSomebodyCouldStillChange) {
  for (const int seals :
       {0, F_SEAL_WRITE, F_SEAL_SHRINK | F_SEAL_GROW, F_SEAL_WRITE | F_SEAL_GROW}) {
    UniqueFd descriptor(::memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    const auto bytes = bytes_.bytes();
    ASSERT_EQ(::write(descriptor.get(), bytes.data(), bytes.size()),
              static_cast<ssize_t>(bytes.size()));
    ASSERT_EQ(::fcntl(descriptor.get(), F_ADD_SEALS, seals), 0);
    bool told = false;
    const auto entry =
        MappedEntry::Map(std::move(descriptor), bytes_.expectation(), [&told] { told = true; });
    EXPECT_EQ(entry.status().code(), absl::StatusCode::kFailedPrecondition) << seals;
    EXPECT_EQ(ErrorReason(entry.status()), "NOT_SEALED") << seals;
    EXPECT_FALSE(told);
  }
}

TEST_F(MappedEntryTest, RefusesDescriptorsThatAreNoMemory) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  UniqueFd other(ends[1]);
  for (const int number : {ends[0], -1}) {
    const auto entry = MappedEntry::Map(UniqueFd(number), bytes_.expectation());
    EXPECT_EQ(ErrorReason(entry.status()), "NOT_SEALED");
  }
}

TEST_F(MappedEntryTest, RefusesAnotherIdentityModelOrSize) {
  const auto region = Sealed();
  const auto reason = [&](auto change) {
    EntryExpectation expectation = bytes_.expectation();
    change(expectation);
    return ErrorReason(MappedEntry::Map(Share(*region), expectation).status());
  };
  EXPECT_EQ(reason([](auto& e) { ++e.epoch; }), "EPOCH_MOVED");
  EXPECT_EQ(reason([](auto& e) { ++e.entry_id; }), "EPOCH_MOVED");
  EXPECT_EQ(reason([](auto& e) { e.model_fingerprint = Digest{}; }), "MODEL_MISMATCH");
  EXPECT_EQ(reason([](auto& e) { e.bytes += kEntryPage; }), "BAD_HEADER");
  EXPECT_EQ(reason([](auto&) {}), "");
}

TEST_F(MappedEntryTest, TheDigestTellsContentApartAndNotWhoAskedForIt) {
  const auto digest = [](EntryBytes& entry) {
    entry.FixChecksums();
    EntryExpectation expectation = entry.expectation();
    expectation.epoch = entry.header().epoch;
    expectation.entry_id = entry.header().entry_id;
    const auto view = MappedEntry::Over(entry.bytes(), expectation);
    EXPECT_THAT(view, IsOk());
    return (*view)->ContentDigest();
  };
  const Digest before = digest(bytes_);
  ++bytes_.header().epoch;
  ++bytes_.header().entry_id;
  ++bytes_.header().plan_generation;
  EXPECT_EQ(digest(bytes_), before);
  bytes_.bytes().back() ^= std::byte{1};
  EXPECT_NE(digest(bytes_), before);
}

TEST_F(MappedEntryTest, IsReadByManyThreadsAndUnmappedByTheLast) {
  const auto region = Sealed();
  int unmapped = 0;
  MASKKV_ASSERT_OK_AND_ASSIGN(auto entry, MappedEntry::Map(Share(*region), bytes_.expectation(),
                                                           [&unmapped] { ++unmapped; }));
  const Digest digest = entry->ContentDigest();
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([entry, &digest] { EXPECT_EQ(entry->ContentDigest(), digest); });
    }
    entry.reset();
  }
  EXPECT_EQ(unmapped, 1);
}

}  // namespace
}  // namespace maskkv::arena
