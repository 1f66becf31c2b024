// SPDX-License-Identifier: Apache-2.0
//
// The contract of plane.h, over every plane; then what only memory that is shared can show.
#include "core/arena/plane.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <memory>
#include <string>

#include "core/arena/layout.h"
#include "core/base/error.h"
#include "tests/support/status_matchers.h"

namespace maskkv::arena::plane_test {
namespace {

using maskkv::testing::IsOk;

constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;

struct PlaneCase {
  std::string name;
  std::function<std::unique_ptr<MemoryPlane>()> make;
};

class PlaneTest : public ::testing::TestWithParam<PlaneCase> {
 protected:
  PlaneTest() : plane_(GetParam().make()) {}

  std::unique_ptr<Region> Allocate(std::uint64_t bytes) {
    auto region = plane_->Allocate(bytes);
    EXPECT_THAT(region, IsOk());
    return *std::move(region);
  }
  static Mapping Map(const Region& region, Access access) {
    auto mapping = region.Map(access);
    EXPECT_THAT(mapping, IsOk());
    return *std::move(mapping);
  }

  const std::unique_ptr<MemoryPlane> plane_;
};

TEST_P(PlaneTest, GivesWholeUnitsOfZeros) {
  EXPECT_EQ(plane_->granularity() % kEntryPage, 0U);
  for (const std::uint64_t bytes : {std::uint64_t{1}, plane_->granularity(),
                                    plane_->granularity() + 1, std::uint64_t{1} << 20}) {
    const auto region = Allocate(bytes);
    EXPECT_GE(region->bytes(), bytes);
    EXPECT_LT(region->bytes() - bytes, plane_->granularity());
    EXPECT_EQ(region->bytes() % plane_->granularity(), 0U);
    const Mapping mapping = Map(*region, Access::kWrite);
    EXPECT_EQ(mapping.memory().size(), region->bytes());
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(mapping.memory().data()) % kEntryAlignment, 0U);
    EXPECT_TRUE(
        std::ranges::all_of(mapping.memory(), [](std::byte b) { return b == std::byte{}; }));
  }
}

// Never a size that the machine could try to provide.
TEST_P(PlaneTest, RefusesSizesThatCannotBe) {
  EXPECT_EQ(plane_->Allocate(0).status().code(), absl::StatusCode::kInvalidArgument);
  for (const std::uint64_t bytes : {std::numeric_limits<std::uint64_t>::max(),
                                    std::uint64_t{1} << 63, std::uint64_t{1} << 62}) {
    EXPECT_EQ(plane_->Allocate(bytes).status().code(), absl::StatusCode::kResourceExhausted);
  }
}

TEST_P(PlaneTest, ReadersSeeWhatWritersWrote) {
  const auto region = Allocate(2 * kEntryPage);
  const Mapping reader = Map(*region, Access::kRead);
  Mapping writer = Map(*region, Access::kWrite);
  writer.memory()[kEntryPage + 5] = std::byte{7};
  EXPECT_EQ(reader.memory()[kEntryPage + 5], std::byte{7});
}

TEST_P(PlaneTest, IsNotSealedWhileSomebodyCouldWrite) {
  const auto region = Allocate(3 * kEntryPage);
  Mapping writer = Map(*region, Access::kWrite);
  writer.memory()[0] = std::byte{1};
  EXPECT_EQ(ErrorReason(region->Seal(1)), "STILL_MAPPED");
  EXPECT_EQ(region->Seal(1).code(), kPrecondition);
  EXPECT_FALSE(region->sealed());
  EXPECT_EQ(region->bytes(), 3 * kEntryPage);  // nothing has changed: the writer goes on
  writer.memory()[3 * kEntryPage - 1] = std::byte{2};
  writer.Reset();
  EXPECT_THAT(region->Seal(1), IsOk());
  EXPECT_TRUE(region->sealed());
  EXPECT_EQ(region->bytes(), plane_->granularity());
}

TEST_P(PlaneTest, IsReadOnlyForEverOnceSealed) {
  const auto region = Allocate(2 * kEntryPage);
  Map(*region, Access::kWrite).memory()[9] = std::byte{3};
  ASSERT_THAT(region->Seal(2 * kEntryPage), IsOk());
  EXPECT_EQ(ErrorReason(region->Map(Access::kWrite).status()), "SEALED");
  EXPECT_EQ(ErrorReason(region->Seal(1)), "SEALED");
  EXPECT_EQ(Map(*region, Access::kRead).memory()[9], std::byte{3});
}

TEST_P(PlaneTest, ReadersDoNotKeepItFromBeingSealed) {
  const auto region = Allocate(2 * kEntryPage);
  Map(*region, Access::kWrite).memory()[9] = std::byte{3};
  const Mapping reader = Map(*region, Access::kRead);
  EXPECT_EQ(reader.memory()[9], std::byte{3});
  EXPECT_THAT(region->Seal(kEntryPage), IsOk());
  EXPECT_EQ(reader.memory()[9], std::byte{3});
}

TEST_P(PlaneTest, RefusesToSealWhatItDoesNotHave) {
  const auto region = Allocate(kEntryPage);
  for (const std::uint64_t used :
       {std::uint64_t{0}, kEntryPage + 1, std::numeric_limits<std::uint64_t>::max()}) {
    EXPECT_EQ(region->Seal(used).code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_FALSE(region->sealed());
}

TEST_P(PlaneTest, MappingsOutliveTheirRegion) {
  auto region = Allocate(kEntryPage);
  Mapping writer = Map(*region, Access::kWrite);
  region.reset();
  writer.memory()[0] = std::byte{1};
  EXPECT_EQ(writer.memory()[0], std::byte{1});
}

TEST_P(PlaneTest, MovedMappingsAreGivenBackOnce) {
  const auto region = Allocate(kEntryPage);
  Mapping writer = Map(*region, Access::kWrite);
  Mapping moved = std::move(writer);
  Mapping other = Map(*region, Access::kWrite);
  other = std::move(moved);
  EXPECT_EQ(other.memory().size(), kEntryPage);
  EXPECT_EQ(ErrorReason(region->Seal(1)), "STILL_MAPPED");
  other.Reset();
  other.Reset();
  EXPECT_THAT(region->Seal(1), IsOk());
}

INSTANTIATE_TEST_SUITE_P(Planes, PlaneTest,
                         ::testing::Values(PlaneCase{"Memfd", [] { return MakeMemfdPlane(); }},
                                           PlaneCase{"Heap", [] { return MakeHeapPlane(); }}),
                         [](const auto& case_info) { return case_info.param.name; });

class MemfdTest : public ::testing::Test {
 protected:
  MemfdTest() : region_(*MakeMemfdPlane()->Allocate(4 * kEntryPage)), peer_(*region_->Share()) {}

  // By the same user through /proc: a descriptor as good as any that could be made.
  UniqueFd Reopen() const {
    const std::string path = "/proc/self/fd/" + std::to_string(peer_.get());
    return UniqueFd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  }

  const std::unique_ptr<Region> region_;
  const UniqueFd peer_;
};

TEST_F(MemfdTest, HasItsPagesBeforeADescriptorLeaves) {
  struct stat status {};
  ASSERT_EQ(::fstat(peer_.get(), &status), 0);
  EXPECT_EQ(status.st_size, static_cast<off_t>(4 * kEntryPage));
  EXPECT_EQ(status.st_blocks * 512, static_cast<blkcnt_t>(4 * kEntryPage));
  ASSERT_THAT(region_->Seal(kEntryPage + 1), IsOk());
  ASSERT_EQ(::fstat(peer_.get(), &status), 0);
  EXPECT_EQ(status.st_blocks * 512, static_cast<blkcnt_t>(2 * kEntryPage));
}

TEST_F(MemfdTest, DescriptorsAreNotInherited) {
  EXPECT_EQ(::fcntl(peer_.get(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
}

TEST_F(MemfdTest, NobodyCanGrowIt) {
  EXPECT_NE(::ftruncate(peer_.get(), static_cast<off_t>(5 * kEntryPage)), 0);
  EXPECT_NE(::fallocate(peer_.get(), 0, 0, static_cast<off_t>(5 * kEntryPage)), 0);
}

TEST_F(MemfdTest, APeersWritableMappingKeepsItFromBeingSealed) {
  auto mapping = MapDescriptor(peer_.get(), 4 * kEntryPage, Access::kWrite);
  ASSERT_THAT(mapping, IsOk());
  EXPECT_EQ(ErrorReason(region_->Seal(1)), "STILL_MAPPED");
  EXPECT_EQ(CheckSealed(peer_.get()).code(), kPrecondition);
  mapping->Reset();
  EXPECT_THAT(region_->Seal(1), IsOk());
  EXPECT_THAT(CheckSealed(peer_.get()), IsOk());
}

TEST_F(MemfdTest, NobodyCanChangeItOnceItIsSealed) {
  ASSERT_THAT(region_->Seal(kEntryPage), IsOk());
  const UniqueFd again = Reopen();
  for (const int descriptor : {peer_.get(), again.get()}) {
    if (descriptor < 0) continue;  // reopening itself may be refused
    EXPECT_NE(::pwrite(descriptor, "x", 1, 0), 1);
    EXPECT_NE(::ftruncate(descriptor, 0), 0);
    EXPECT_NE(::ftruncate(descriptor, static_cast<off_t>(2 * kEntryPage)), 0);
    EXPECT_NE(::fallocate(descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), 0);
    EXPECT_NE(::fcntl(descriptor, F_ADD_SEALS, F_SEAL_GROW), 0);
    EXPECT_NE(MapDescriptor(descriptor, kEntryPage, Access::kWrite).status().code(),
              absl::StatusCode::kOk);
    EXPECT_THAT(MapDescriptor(descriptor, kEntryPage, Access::kRead), IsOk());
  }
}

TEST_F(MemfdTest, APeerThatShrinksOrSealsItBeforeIsFoundOut) {
  ASSERT_EQ(::ftruncate(peer_.get(), static_cast<off_t>(kEntryPage)), 0);
  EXPECT_EQ(ErrorReason(region_->Seal(3 * kEntryPage)), "NOT_SEALED");
  for (const int seals : {F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_SHRINK | F_SEAL_SEAL}) {
    const auto region = *MakeMemfdPlane()->Allocate(4 * kEntryPage);
    const auto peer = region->Share();
    ASSERT_THAT(peer, IsOk());
    ASSERT_EQ(::fcntl(peer->get(), F_ADD_SEALS, seals), 0);
    EXPECT_EQ(ErrorReason(region->Seal(kEntryPage)), "NOT_SEALED") << seals;
    EXPECT_FALSE(region->sealed());
  }
}

TEST_F(MemfdTest, MapsNoMoreThanThereIs) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  for (const std::uint64_t bytes :
       {std::uint64_t{0}, 4 * kEntryPage + 1, std::numeric_limits<std::uint64_t>::max()}) {
    EXPECT_EQ(MapDescriptor(peer_.get(), bytes, Access::kRead).status().code(), kInvalid);
  }
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const UniqueFd in(ends[0]), out(ends[1]);
  EXPECT_EQ(MapDescriptor(in.get(), 1, Access::kRead).status().code(), kInvalid);
  EXPECT_EQ(MapDescriptor(-1, 1, Access::kRead).status().code(), kInvalid);
}

}  // namespace
}  // namespace maskkv::arena::plane_test
