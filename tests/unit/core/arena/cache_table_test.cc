// SPDX-License-Identifier: Apache-2.0
#include "core/arena/cache_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "core/base/error.h"
#include "tests/support/status_matchers.h"

namespace maskkv::arena::cache_table_test {
namespace {

using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr std::uint64_t kPage = 4096;

class CacheTableTest : public ::testing::Test {
 protected:
  static CacheLimits Limits() {
    CacheLimits limits;
    limits.capacity_bytes = 8 * kPage;
    limits.quotas = {{"small", 3 * kPage}};
    return limits;
  }

  CacheTable::Random Random() {
    return [this](std::span<std::byte> bytes) {
      for (std::byte& b : bytes) b = static_cast<std::byte>(random_());
    };
  }

  Caller Session(const std::string& tenant) {
    return {*table_.OpenSession({1000, tenant, false}), tenant};
  }
  static Digest Key(int value) {
    Digest key{};
    key[0] = static_cast<std::byte>(value);
    return key;
  }
  // A sealed entry of whole pages.
  Handle Sealed(const Caller& caller, std::uint64_t pages, std::optional<Digest> key = {}) {
    const auto reserved = table_.Reserve(caller, key, pages * kPage, false);
    EXPECT_TRUE(reserved.ok()) << reserved.status();
    const auto id = table_.BeginSeal(caller, reserved->handle, pages * kPage);
    EXPECT_TRUE(id.ok()) << id.status();
    const auto handle = table_.FinishSeal(*id, pages * kPage, {10, 20});
    EXPECT_TRUE(handle.ok()) << handle.status();
    table_.CheckInvariants();
    return *handle;
  }

  ManualClock clock_;
  std::mt19937_64 random_{1};
  CacheTable table_{Limits(), "here", 77, clock_, Random()};
  Caller a_ = Session("a"), b_ = Session("b");
};

TEST_F(CacheTableTest, ASealedEntryIsFoundByItsKeyWithinItsTenantOnly) {
  const Handle handle = Sealed(a_, 1, Key(1));
  const auto again = table_.Reserve(a_, Key(1), kPage, false);
  ASSERT_TRUE(again.ok());
  EXPECT_TRUE(again->cached);
  EXPECT_EQ(again->handle, handle);
  EXPECT_FALSE(table_.Reserve(b_, Key(1), kPage, false)->cached);
  EXPECT_FALSE(table_.Reserve(a_, Key(1), kPage, true)->cached);
}

TEST_F(CacheTableTest, SealingGivesBackWhatWasNotUsed) {
  const auto reserved = table_.Reserve(a_, {}, 5 * kPage - 1, false);
  EXPECT_EQ(table_.Stat().allocated_bytes, 5 * kPage);
  const auto id = table_.BeginSeal(a_, reserved->handle, 100);
  ASSERT_TRUE(table_.FinishSeal(*id, kPage, {}).ok());
  EXPECT_EQ(table_.Stat().allocated_bytes, kPage);
  table_.CheckInvariants();
}

TEST_F(CacheTableTest, TheLeastRecentlyUsedOfTheTenantGoesFirstThenThatOfOthers) {
  const Handle other = Sealed(b_, 2);
  const Handle first = Sealed(a_, 2), second = Sealed(a_, 2);
  ASSERT_TRUE(table_.Release(a_, table_.Lease(a_, first, {})->id).ok());  // used again
  const auto room = table_.Reserve(a_, {}, 4 * kPage, false);
  EXPECT_THAT(room->gone, ElementsAre(second.entry_id));
  const auto more = table_.Reserve(a_, {}, 3 * kPage, false);
  EXPECT_THAT(more->gone, ElementsAre(first.entry_id, other.entry_id));
  EXPECT_EQ(table_.counters().evictions_capacity, 3U);
  EXPECT_EQ(table_.counters().evictions_quota, 0U);
  table_.CheckInvariants();
}

TEST_F(CacheTableTest, LeasedEntriesStayAndAFailedReservationEvictsNothing) {
  const Handle leased = Sealed(a_, 5), free = Sealed(a_, 1);
  const auto lease = table_.Lease(a_, leased, {});
  const auto refused = table_.Reserve(b_, {}, 4 * kPage, false);
  EXPECT_EQ(ErrorReason(refused.status()), "CACHE_FULL");
  EXPECT_TRUE(RetryAfter(refused.status()).has_value());
  EXPECT_TRUE(table_.Lease(a_, free, {}).ok());
  ASSERT_TRUE(table_.Release(a_, lease->id).ok());
  EXPECT_THAT(table_.Reserve(b_, {}, 4 * kPage, false)->gone, ElementsAre(leased.entry_id));
}

TEST_F(CacheTableTest, AQuotaBoundsATenantWhateverRoomThereIs) {
  const Caller small = Session("small");
  const Handle entry = Sealed(small, 2);
  EXPECT_THAT(table_.Reserve(small, {}, 2 * kPage, false)->gone, ElementsAre(entry.entry_id));
  EXPECT_EQ(table_.counters().evictions_quota, 1U);
  const auto refused = table_.Reserve(small, {}, 2 * kPage, false);
  EXPECT_EQ(ErrorReason(refused.status()), "QUOTA_EXCEEDED");
  EXPECT_EQ(ErrorReason(table_.Reserve(small, {}, 4 * kPage, false).status()), "ENTRY_TOO_LARGE");
  EXPECT_EQ(ErrorReason(table_.Reserve(a_, {}, ~std::uint64_t{0}, false).status()),
            "ENTRY_TOO_LARGE");
  table_.CheckInvariants();
}

TEST_F(CacheTableTest, EntriesAreBoundedInNumberAndATenantsByItsPartOfTheCapacity) {
  CacheLimits limits = Limits();
  limits.capacity_bytes = 1000 * kPage;
  limits.quotas = {{"small", 500 * kPage}};
  limits.max_entries = 4;
  CacheTable table(limits, "here", 77, clock_, Random());
  const auto session = [&](const std::string& tenant) {
    return Caller{*table.OpenSession({1000, tenant, false}), tenant};
  };
  const Caller a = session("a"), small = session("small");
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(table.Reserve(small, {}, 1, false).ok());
  EXPECT_EQ(ErrorReason(table.Reserve(small, {}, 1, false).status()), "QUOTA_EXCEEDED");
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(table.Reserve(a, {}, 1, false).ok());
  EXPECT_EQ(ErrorReason(table.Reserve(a, {}, 1, false).status()), "CACHE_FULL");
  table.CheckInvariants();
  EXPECT_EQ(table.CloseSession(small.session).size(), 2U);
  EXPECT_TRUE(table.Reserve(a, {}, 1, false).ok());
  table.CheckInvariants();
}

TEST_F(CacheTableTest, OneSessionsLeasesLeaveThoseOfOthersAlone) {
  CacheLimits limits = Limits();
  limits.max_leases = 2;
  CacheTable table(limits, "here", 77, clock_, Random());
  const Caller one{*table.OpenSession({1000, "a", false}), "a"};
  const Caller two{*table.OpenSession({1000, "a", false}), "a"};
  const auto reserved = table.Reserve(one, {}, kPage, false);
  const Handle handle =
      *table.FinishSeal(*table.BeginSeal(one, reserved->handle, kPage), kPage, {});
  ASSERT_TRUE(table.Lease(one, handle, seconds(1)).ok());
  ASSERT_TRUE(table.Lease(one, handle, {}).ok());
  EXPECT_EQ(ErrorReason(table.Lease(one, handle, {}).status()), "TOO_MANY_LEASES");
  EXPECT_TRUE(table.Lease(two, handle, {}).ok());
  clock_.Advance(seconds(2));
  EXPECT_EQ(table.ExpireLeases(), 1);
  EXPECT_TRUE(table.Lease(one, handle, {}).ok());
  table.CheckInvariants();
}

TEST_F(CacheTableTest, EvictedBytesStayChargedUntilTheLastPeerHasUnmapped) {
  const Handle handle = Sealed(a_, 4);
  const Caller second = Session("a");
  const auto one = table_.Lease(a_, handle, {}), two = table_.Lease(second, handle, {});
  ASSERT_TRUE(table_.ReadTarget(a_.session, one->id).ok());
  ASSERT_TRUE(table_.ReadTarget(second.session, two->id).ok());
  const auto evicted = table_.Evict(a_, handle);
  EXPECT_EQ(evicted->pending_bytes, 4 * kPage);
  EXPECT_EQ(ErrorReason(table_.Lease(a_, handle, {}).status()), "HANDLE_UNKNOWN");
  EXPECT_EQ(ErrorReason(table_.Reserve(b_, {}, 5 * kPage, false).status()), "CACHE_FULL");
  EXPECT_THAT(*table_.Release(a_, one->id), IsEmpty());
  table_.CheckInvariants();
  EXPECT_THAT(table_.CloseSession(second.session), ElementsAre(handle.entry_id));
  EXPECT_EQ(table_.Stat().allocated_bytes, 0U);
  table_.CheckInvariants();
}

TEST_F(CacheTableTest, ALeaseEndsByItselfButNotTheMappingUnderIt) {
  const Handle handle = Sealed(a_, 4);
  const auto lease = table_.Lease(a_, handle, seconds(10));
  ASSERT_TRUE(table_.ReadTarget(a_.session, lease->id).ok());
  clock_.Advance(seconds(9));
  ASSERT_TRUE(table_.Renew(a_, lease->id, seconds(10)).ok());
  clock_.Advance(seconds(9));
  EXPECT_EQ(table_.ExpireLeases(), 0);
  clock_.Advance(seconds(2));
  EXPECT_EQ(table_.ExpireLeases(), 1);
  table_.CheckInvariants();
  EXPECT_EQ(ErrorReason(table_.Renew(a_, lease->id, {}).status()), "LEASE_UNKNOWN");
  EXPECT_EQ(ErrorReason(table_.Reserve(a_, {}, 5 * kPage, false).status()), "CACHE_FULL");
  EXPECT_TRUE(table_.Release(a_, lease->id).ok());
  EXPECT_THAT(table_.Reserve(a_, {}, 5 * kPage, false)->gone, ElementsAre(handle.entry_id));
}

TEST_F(CacheTableTest, ASessionThatEndsTakesItsReservationsAndLeasesAlong) {
  const Handle handle = Sealed(a_, 1);
  const Caller dying = Session("a");
  const auto lease = table_.Lease(dying, handle, {});
  ASSERT_TRUE(table_.ReadTarget(dying.session, lease->id).ok());
  const auto reserved = table_.Reserve(dying, {}, 3 * kPage, false);
  EXPECT_THAT(table_.CloseSession(dying.session), ElementsAre(reserved->handle.entry_id));
  EXPECT_EQ(table_.Stat().leases, 0);
  EXPECT_EQ(ErrorReason(table_.Authenticate(dying.session, "").status()), "NO_SESSION");
  EXPECT_THAT(table_.CloseSession(dying.session), IsEmpty());
  table_.CheckInvariants();
}

TEST_F(CacheTableTest, ASessionThatEndsWhileItsEntryIsSealedLeavesNothing) {
  const auto reserved = table_.Reserve(a_, Key(1), kPage, false);
  const auto id = table_.BeginSeal(a_, reserved->handle, kPage);
  EXPECT_THAT(table_.CloseSession(a_.session), IsEmpty());
  table_.CheckInvariants();
  EXPECT_EQ(ErrorReason(table_.FinishSeal(*id, kPage, {}).status()), "HANDLE_UNKNOWN");
  EXPECT_THAT(table_.AbortSeal(*id, true), ElementsAre(*id));
  EXPECT_EQ(table_.Stat().allocated_bytes, 0U);
}

TEST_F(CacheTableTest, ForgedStaleAndForeignNamesAreAllUnknownOrMoved) {
  const Handle handle = Sealed(a_, 1);
  const auto reason = [&](const Caller& caller, Handle forged) {
    return ErrorReason(table_.Lease(caller, forged, {}).status());
  };
  Handle forged = handle;
  forged.nonce ^= 1;
  EXPECT_EQ(reason(a_, forged), "HANDLE_UNKNOWN");
  forged = handle;
  forged.entry_id += 100;
  EXPECT_EQ(reason(a_, forged), "HANDLE_UNKNOWN");
  forged = handle;
  forged.owner = "there";
  EXPECT_EQ(reason(a_, forged), "HANDLE_UNKNOWN");
  forged = handle;
  ++forged.epoch;
  EXPECT_EQ(reason(a_, forged), "EPOCH_MOVED");
  forged = handle;
  ++forged.version;
  EXPECT_EQ(reason(a_, forged), "EPOCH_MOVED");
  EXPECT_EQ(reason(b_, handle), "HANDLE_UNKNOWN");
  const LeaseId lease = table_.Lease(a_, handle, {})->id;
  const Caller second = Session("a");
  EXPECT_EQ(ErrorReason(table_.Release(second, lease).status()), "LEASE_UNKNOWN");
  EXPECT_EQ(ErrorReason(table_.ReadTarget(b_.session, lease).status()), "LEASE_UNKNOWN");
  LeaseId guessed = lease;
  guessed.bytes[3] ^= std::byte{1};
  EXPECT_EQ(ErrorReason(table_.Renew(a_, guessed, {}).status()), "LEASE_UNKNOWN");
}

TEST_F(CacheTableTest, OnlyAServiceNamesATenant) {
  const SessionToken service = *table_.OpenSession({0, "services", true});
  EXPECT_EQ(table_.Authenticate(service, "red")->tenant, "red");
  EXPECT_EQ(table_.Authenticate(service, "")->tenant, "services");
  EXPECT_EQ(table_.Authenticate(a_.session, "red")->tenant, "a");
}

TEST_F(CacheTableTest, BadNumbersAreRefused) {
  EXPECT_EQ(table_.Reserve(a_, {}, 0, false).status().code(), absl::StatusCode::kInvalidArgument);
  const Handle handle = Sealed(a_, 1);
  for (const Duration ttl : {Duration(-1), Duration(seconds(3601)), Duration(1)}) {
    EXPECT_EQ(table_.Lease(a_, handle, ttl).status().code(), absl::StatusCode::kInvalidArgument);
  }
  const auto reserved = table_.Reserve(a_, {}, kPage, false);
  for (const std::uint64_t used : {std::uint64_t{0}, kPage + 1}) {
    EXPECT_EQ(table_.BeginSeal(a_, reserved->handle, used).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(ErrorReason(table_.Evict(a_, reserved->handle).status()), "NOT_SEALED");
}

TEST_F(CacheTableTest, TheNewerEntryOfAKeyTakesItOver) {
  const Handle old = Sealed(a_, 1, Key(1));
  const auto reserved = table_.Reserve(a_, Key(1), kPage, /*ignore_cached=*/true);
  const auto id = table_.BeginSeal(a_, reserved->handle, kPage);
  const Handle fresh = *table_.FinishSeal(*id, kPage, {});
  EXPECT_EQ(table_.Reserve(a_, Key(1), kPage, false)->handle, fresh);
  ASSERT_TRUE(table_.Evict(a_, old).ok());
  table_.CheckInvariants();
  EXPECT_EQ(table_.Reserve(a_, Key(1), kPage, false)->handle, fresh);
}

}  // namespace
}  // namespace maskkv::arena::cache_table_test
