// SPDX-License-Identifier: Apache-2.0
#include "core/arena/cache_manager.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "core/arena/mapped_entry.h"
#include "core/base/error.h"
#include "tests/support/raw_peer.h"
#include "tests/support/seed.h"
#include "tests/support/small_entry.h"
#include "tests/support/status_matchers.h"

namespace maskkv::arena {
namespace {

using maskkv::testing::IsOk;
using maskkv::testing::kSmallEntryBytes;
using maskkv::testing::OpenDescriptors;
using maskkv::testing::WriteSmallEntry;

// A plane that runs something of the test's before it gives memory, or gives none.
class HookedPlane final : public MemoryPlane {
 public:
  engine::MemoryKind memory() const override { return plane_->memory(); }
  std::uint64_t granularity() const override { return plane_->granularity(); }
  absl::StatusOr<std::unique_ptr<Region>> Allocate(std::uint64_t bytes) override {
    if (before) before();
    if (fails) return absl::ResourceExhaustedError("memory: expected some, found none");
    return plane_->Allocate(bytes);
  }

  std::function<void()> before;
  bool fails = false;

 private:
  const std::unique_ptr<MemoryPlane> plane_ = MakeMemfdPlane();
};

class CacheManagerTest : public ::testing::Test {
 protected:
  static CacheLimits Limits() {
    CacheLimits limits;
    limits.capacity_bytes = 8 * kSmallEntryBytes;
    return limits;
  }

  void TearDown() override { manager_.CheckInvariants(); }

  Caller Session(const std::string& tenant = "a") {
    return {*manager_.OpenSession({1000, tenant, false}), tenant};
  }
  Handle Reserved(const Caller& caller) {
    const auto reserved = manager_.Reserve(caller, {}, kSmallEntryBytes, false);
    EXPECT_THAT(reserved, IsOk());
    return reserved->handle;
  }
  Mapping MapForWriting(const Caller& caller, const Handle& handle) {
    const auto shared = manager_.WriteDescriptor(caller.session, handle.entry_id, handle.nonce);
    EXPECT_THAT(shared, IsOk());
    return *MapDescriptor(shared->fd.get(), shared->bytes, Access::kWrite);
  }
  Handle Sealed(const Caller& caller) {
    const Handle handle = Reserved(caller);
    std::uint64_t used = 0;
    {
      const Mapping mapping = MapForWriting(caller, handle);
      used = WriteSmallEntry(mapping.memory(), handle);
    }
    const auto sealed = manager_.Seal(caller, handle, used);
    EXPECT_THAT(sealed, IsOk());
    return sealed->handle;
  }
  static std::string Reason(const absl::Status& status) { return ErrorReason(status); }

  ManualClock clock_;
  HookedPlane* plane_ = new HookedPlane;  // of the manager
  CacheManager manager_{Limits(), "here", 77, std::unique_ptr<MemoryPlane>(plane_), clock_};
};

TEST_F(CacheManagerTest, AnEntryIsWrittenSealedAndReadAndItsMemoryComesBack) {
  const std::ptrdiff_t descriptors = OpenDescriptors();
  const Caller writer = Session(), reader = Session();
  const Handle handle = Sealed(writer);
  EXPECT_EQ(handle.version, 1U);
  const auto grant = manager_.Lease(reader, handle, {});
  ASSERT_THAT(grant, IsOk());
  auto shared = manager_.ReadDescriptor(reader.session, grant->id);
  ASSERT_THAT(shared, IsOk());
  EXPECT_EQ(shared->bytes, grant->bytes);
  EntryExpectation expectation;
  expectation.epoch = handle.epoch;
  expectation.entry_id = handle.entry_id;
  expectation.bytes = shared->bytes;
  const auto mapped = MappedEntry::Map(std::move(shared->fd), expectation);
  ASSERT_THAT(mapped, IsOk());
  EXPECT_EQ((*mapped)->metadata().prompt_tokens, 40);
  const auto listed = manager_.List(reader, 0, 10);
  ASSERT_EQ(listed.size(), 1U);
  EXPECT_EQ(listed[0].facts.pairs, (*mapped)->pairs());

  EXPECT_EQ(manager_.Evict(writer, handle)->pending_bytes, grant->bytes);
  EXPECT_EQ(OpenDescriptors(), descriptors + 1);
  EXPECT_THAT(manager_.Release(reader, grant->id), IsOk());
  EXPECT_EQ(OpenDescriptors(), descriptors);
  EXPECT_EQ(manager_.Stat().allocated_bytes, 0U);
  EXPECT_EQ((*mapped)->ContentDigest(), (*mapped)->ContentDigest());  // still readable
}

TEST_F(CacheManagerTest, AnEntryThatIsStillMappedWritableIsNotSealedUntilItIsUnmapped) {
  const Caller writer = Session();
  const Handle handle = Reserved(writer);
  Mapping mapping = MapForWriting(writer, handle);
  const std::uint64_t used = WriteSmallEntry(mapping.memory(), handle);
  EXPECT_EQ(Reason(manager_.Seal(writer, handle, used).status()), "STILL_MAPPED");
  mapping.Reset();
  EXPECT_THAT(manager_.Seal(writer, handle, used), IsOk());
}

TEST_F(CacheManagerTest, WhatIsNoEntryIsRefusedAndItsReservationIsGone) {
  struct Damage {
    const char* what;
    std::function<void(std::span<std::byte>, std::uint64_t& used)> damage;
    const char* reason;
  };
  const Damage damages[] = {
      {"magic", [](auto memory, auto&) { memory[0] ^= std::byte{1}; }, "BAD_HEADER"},
      {"header", [](auto memory, auto&) { memory[80] ^= std::byte{64}; }, "CHECKSUM"},
      {"payload", [](auto memory, auto& used) { memory[used - 1] ^= std::byte{1}; }, "CHECKSUM"},
      {"a page too many", [](auto, auto& used) { used += 4096; }, "BAD_HEADER"},
      {"nothing written", [](auto memory, auto&) { std::ranges::fill(memory, std::byte{}); },
       "BAD_HEADER"},
  };
  const std::ptrdiff_t descriptors = OpenDescriptors();
  const Caller writer = Session();
  for (const Damage& one : damages) {
    const Handle handle = Reserved(writer);
    std::uint64_t used = 0;
    {
      const Mapping mapping = MapForWriting(writer, handle);
      used = WriteSmallEntry(mapping.memory(), handle);
      one.damage(mapping.memory(), used);
    }
    const absl::Status status = manager_.Seal(writer, handle, used).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << one.what << status;
    EXPECT_EQ(Reason(status), one.reason) << one.what << status;
    EXPECT_EQ(Reason(manager_.Seal(writer, handle, used).status()), "HANDLE_UNKNOWN");
    EXPECT_EQ(manager_.Stat().allocated_bytes, 0U);
    EXPECT_EQ(OpenDescriptors(), descriptors);
  }
}

TEST_F(CacheManagerTest, AnotherEntrysHeaderIsRefused) {
  const Caller writer = Session();
  const Handle one = Reserved(writer), two = Reserved(writer);
  std::uint64_t used = 0;
  {
    const Mapping mapping = MapForWriting(writer, two);
    used = WriteSmallEntry(mapping.memory(), one);
  }
  const absl::Status status = manager_.Seal(writer, two, used).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(Reason(status), "BAD_HEADER");
  EXPECT_EQ(manager_.Stat().reserved_entries, 1);
}

TEST_F(CacheManagerTest, WithoutMemoryOfTheSystemNothingStaysReserved) {
  const Caller writer = Session();
  plane_->fails = true;
  const auto refused = manager_.Reserve(writer, {}, 1, false);
  EXPECT_EQ(Reason(refused.status()), "CACHE_FULL");
  EXPECT_TRUE(RetryAfter(refused.status()).has_value());
  EXPECT_EQ(manager_.Stat().allocated_bytes, 0U);
}

// A list shows a reservation whose memory is not there yet: its handle is known, and harmless.
TEST_F(CacheManagerTest, AReservationThatIsNotAllocatedYetCanBeSeenAndDropped) {
  const Caller writer = Session();
  Handle seen;
  plane_->before = [&] {
    seen = manager_.List(writer, 0, 1).at(0).handle;
    EXPECT_EQ(Reason(manager_.Seal(writer, seen, 1).status()), "NOT_RESERVED");
    EXPECT_EQ(Reason(manager_.WriteDescriptor(writer.session, seen.entry_id, seen.nonce).status()),
              "HANDLE_UNKNOWN");
  };
  EXPECT_EQ(Reserved(writer), seen);
  plane_->before = [&] {
    seen = manager_.List(writer, seen.entry_id, 1).at(0).handle;
    EXPECT_THAT(manager_.Drop(writer, seen), IsOk());
  };
  EXPECT_EQ(manager_.Reserve(writer, {}, 1, false).status().code(), absl::StatusCode::kAborted);
  plane_->before = [&] { manager_.CloseSession(writer.session); };
  EXPECT_EQ(manager_.Reserve(writer, {}, 1, false).status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(manager_.Stat().allocated_bytes, 0U);
}

TEST_F(CacheManagerTest, ThreadsThatDoEverythingAtOnceLeaveNothingBehind) {
  const std::ptrdiff_t descriptors = OpenDescriptors();
  std::vector<std::thread> threads;
  for (std::uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937_64 random(maskkv::testing::Seed() + t);
      const std::string tenant(1, static_cast<char>('a' + t % 2));
      for (int life = 0; life < 20; ++life) {
        const Caller me = Session(tenant);
        for (int i = 0; i < 10; ++i) {
          const auto listed = manager_.List(me, 0, 100);
          if (!listed.empty() && random() % 2 == 0) {
            const Handle handle = listed[random() % listed.size()].handle;
            const auto lease = manager_.Lease(me, handle, {});
            if (lease.ok()) manager_.ReadDescriptor(me.session, lease->id).IgnoreError();
            if (lease.ok() && random() % 2 == 0) manager_.Release(me, lease->id).IgnoreError();
            if (random() % 4 == 0) manager_.Evict(me, handle).IgnoreError();
            continue;
          }
          const auto reserved = manager_.Reserve(me, {}, kSmallEntryBytes, false);
          if (!reserved.ok()) continue;
          const auto shared = manager_.WriteDescriptor(me.session, reserved->handle.entry_id,
                                                       reserved->handle.nonce);
          if (!shared.ok() || random() % 8 == 0) continue;
          std::uint64_t used = 0;
          {
            const auto mapping = MapDescriptor(shared->fd.get(), shared->bytes, Access::kWrite);
            used = WriteSmallEntry(mapping->memory(), reserved->handle, random());
          }
          EXPECT_THAT(manager_.Seal(me, reserved->handle, used), IsOk());
        }
        manager_.CheckInvariants();
        manager_.CloseSession(me.session);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const char* tenant : {"a", "b"}) manager_.EvictAll(Session(tenant));
  EXPECT_EQ(manager_.Stat().allocated_bytes, 0U);
  EXPECT_EQ(OpenDescriptors(), descriptors);
}

}  // namespace
}  // namespace maskkv::arena
