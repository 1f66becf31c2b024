// SPDX-License-Identifier: Apache-2.0
//
// The cache manager as services use it: whole lives of entries over real gRPC and real descriptors.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>
#include <mutex>
#include <string>
#include <variant>
#include <vector>

#include "core/base/error.h"
#include "maskkv/v1/budget.pb.h"
#include "services/common/handle_proto.h"
#include "tests/integration/cache_world.h"
#include "tests/support/small_entry.h"
#include "tests/support/status_matchers.h"
#include "tests/support/wait_until.h"

namespace maskkv::testing {
namespace {

using services::CacheClient;
using services::CachedHandle;
using services::WritableEntry;

constexpr std::uint64_t kPage = 4096;
const arena::Digest kModel{};

class CacheServiceTest : public CacheWorld {
 protected:
  static arena::Digest Key(int value) {
    arena::Digest key{};
    key[0] = static_cast<std::byte>(value);
    return key;
  }
  static std::string Reason(const absl::Status& status) { return ErrorReason(status); }
  absl::StatusOr<std::shared_ptr<const arena::MappedEntry>> Map(CacheClient& client,
                                                                const arena::Handle& handle,
                                                                const std::string& tenant = "red") {
    return client.Map(*TenantCall(tenant), handle, kModel);
  }
  void Restart() {
    Stop();
    Start();
  }
  void StartWith(std::uint64_t capacity, std::uint64_t quota = 0) {
    Stop();
    options_.limits.capacity_bytes = capacity;
    options_.limits.quota_bytes = quota;
    Start();
  }
};

TEST_F(CacheServiceTest, AnEntryIsWrittenByOneProcessAndReadByAnother) {
  const auto prefill = Client(), decode = Client();
  const arena::Handle handle = Publish(*prefill, "red", Key(1));
  EXPECT_EQ(handle.owner, "local");
  EXPECT_EQ(handle.version, 1U);
  {
    const auto view = Map(*decode, handle);
    ASSERT_THAT(view, IsOk());
    const auto again = Map(*prefill, handle);
    EXPECT_EQ((*view)->ContentDigest(), (*again)->ContentDigest());
    EXPECT_EQ(manager().Stat().leases, 2);
    const auto found = decode->Reserve(*TenantCall(), Key(1), kSmallEntryBytes, false);
    ASSERT_THAT(found, IsOk());
    EXPECT_EQ(std::get<CachedHandle>(*found).handle, handle);
  }
  prefill->Flush();
  decode->Flush();
  EXPECT_EQ(manager().Stat().leases, 0);
  EXPECT_EQ(manager().Stat().sealed_entries, 1);
  EXPECT_EQ(manager().Stat().sessions, 2);
  CachePeer peer = Peer();
  v1::Handle message;
  services::ToProto(handle, message);
  const auto evicted = peer.Evict(message);
  ASSERT_THAT(evicted, IsOk());
  EXPECT_EQ(evicted->entries(), 1);
  EXPECT_EQ(peer.Stat().allocated_bytes(), 0U);
  EXPECT_EQ(Reason(Map(*decode, handle).status()), "HANDLE_UNKNOWN");
}

TEST_F(CacheServiceTest, WhatIsNotUsedIsGivenBackAtSeal) {
  const auto client = Client();
  auto reserved = client->Reserve(*TenantCall(), {}, 64 * kPage, false);
  auto entry = std::get<std::unique_ptr<WritableEntry>>(*std::move(reserved));
  EXPECT_EQ(entry->memory().size(), 64 * kPage);
  EXPECT_EQ(manager().Stat().allocated_bytes, 64 * kPage);
  const std::uint64_t used = WriteSmallEntry(entry->memory(), entry->handle());
  EXPECT_THAT(entry->Seal(used), IsOk());
  EXPECT_EQ(manager().Stat().allocated_bytes, (used + kPage - 1) / kPage * kPage);
}

TEST_F(CacheServiceTest, AReservationThatIsDroppedOrFailsLeavesNothing) {
  const auto client = Client();
  client->Reserve(*TenantCall(), {}, kPage, false).IgnoreError();
  client->Flush();
  EXPECT_EQ(manager().Stat().allocated_bytes, 0U);
  auto reserved = client->Reserve(*TenantCall(), {}, kPage, false);
  auto entry = std::get<std::unique_ptr<WritableEntry>>(*std::move(reserved));
  const auto sealed = entry->Seal(100);  // nothing was written
  EXPECT_EQ(sealed.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(manager().Stat().allocated_bytes, 0U);
  EXPECT_EQ(Metric("maskkv_cache_integrity_failures_total{kind=\"header\"}"), 1);
}

TEST_F(CacheServiceTest, TheOldestEntryThatNobodyMapsMakesRoom) {
  StartWith(3 * kSmallEntryBytes);
  const auto client = Client();
  const arena::Handle first = Publish(*client), second = Publish(*client), third = Publish(*client);
  const auto view = Map(*client, first);
  ASSERT_THAT(view, IsOk());
  const std::uint64_t room = 3 * kSmallEntryBytes - manager().Stat().allocated_bytes;
  const auto entry = client->Reserve(*TenantCall(), {}, room + 1, false);
  ASSERT_THAT(entry, IsOk());
  EXPECT_EQ(Reason(Map(*client, second).status()), "HANDLE_UNKNOWN");
  EXPECT_THAT(Map(*client, third), IsOk());
  EXPECT_THAT(Map(*client, first), IsOk());
  EXPECT_EQ(Metric("maskkv_cache_evictions_total{reason=\"capacity\"}"), 1);
}

TEST_F(CacheServiceTest, ATenantsQuotaIsTakenUntilItsReadersHaveUnmapped) {
  StartWith(1 << 20, kSmallEntryBytes);
  const auto client = Client();
  const arena::Handle handle = Publish(*client);
  auto view = *Map(*client, handle);
  {
    CachePeer peer = Peer();
    v1::Handle message;
    services::ToProto(handle, message);
    const auto evicted = peer.Evict(message);
    ASSERT_THAT(evicted, IsOk());
    EXPECT_GT(evicted->pending_bytes(), 0U);
    EXPECT_EQ(evicted->freed_bytes(), 0U);
  }
  const auto refused = client->Reserve(*TenantCall(), {}, kSmallEntryBytes, false);
  EXPECT_EQ(Reason(refused.status()), "QUOTA_EXCEEDED");
  EXPECT_TRUE(RetryAfter(refused.status()).has_value());
  EXPECT_EQ(Reason(client->Reserve(*TenantCall(), {}, kSmallEntryBytes + 1, false).status()),
            "ENTRY_TOO_LARGE");
  EXPECT_THAT(client->Reserve(*TenantCall("blue"), {}, kSmallEntryBytes, false), IsOk());
  view.reset();
  client->Flush();
  EXPECT_THAT(client->Reserve(*TenantCall(), {}, kSmallEntryBytes, false), IsOk());
}

TEST_F(CacheServiceTest, AfterARestartOldHandlesAreMovedOldMappingsGoodAndNewEntriesPossible) {
  const auto client = Client();
  const arena::Handle old = Publish(*client);
  const auto view = *Map(*client, old);
  const arena::Digest digest = view->ContentDigest();
  auto reserved = client->Reserve(*TenantCall(), {}, kPage, false);
  auto entry = std::get<std::unique_ptr<WritableEntry>>(*std::move(reserved));

  Restart();
  EXPECT_EQ(view->ContentDigest(), digest);
  EXPECT_FALSE(entry->Seal(100).ok());
  const absl::Status moved = Map(*client, old).status();
  EXPECT_EQ(moved.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(Reason(moved), "EPOCH_MOVED");
  const arena::Handle fresh = Publish(*client);
  EXPECT_NE(fresh.epoch, old.epoch);
  EXPECT_THAT(Map(*client, fresh), IsOk());
  client->Flush();
  EXPECT_EQ(manager().Stat().leases, 0);
  EXPECT_EQ(manager().Stat().reserved_entries, 0);
}

TEST_F(CacheServiceTest, WhileTheDaemonIsAwayCallsSaySo) {
  const auto client = Client();
  EXPECT_THAT(client->Check(), IsOk());
  const arena::Handle handle = Publish(*client);
  auto view = *Map(*client, handle);
  Stop();
  for (const absl::Status& status : {client->Check(), Map(*client, handle).status(),
                                     client->Reserve(*TenantCall(), {}, 1, false).status()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_EQ(Reason(status), "CACHE_DOWN");
  }
  view.reset();
  client->Flush();
  Start();
  EXPECT_THAT(client->Check(), IsOk());
}

TEST_F(CacheServiceTest, ALeaseIsRenewedAsLongAsItsViewLives) {
  const auto client = Client(/*lease_ttl_ms=*/1000);
  const arena::Handle handle = Publish(*client);
  const auto view = *Map(*client, handle);
  // A third of the time to live apart: after five, it would have ended.
  WaitUntil([&] {
    return Metric(
               "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Renew\","
               "grpc_service=\"maskkv.v1.CacheService\",grpc_type=\"unary\"}") >= 5;
  });
  EXPECT_EQ(manager().Stat().leases, 1);
  EXPECT_EQ(manager().counters().leases_expired, 0U);
}

TEST_F(CacheServiceTest, ALeaseThatNobodyRenewsEndsAndItsMappingStaysCharged) {
  CachePeer peer = Peer();
  const v1::Handle handle = peer.SmallEntry();
  const auto lease = peer.Lease(handle, 1000);
  ASSERT_THAT(lease, IsOk());
  ASSERT_THAT(peer.ReadDescriptor(*lease), IsOk());
  WaitUntil([&] { return manager().Stat().leases == 0; });
  v1::RenewRequest renew;
  renew.set_lease_id(*lease);
  v1::RenewResponse renewed;
  EXPECT_EQ(Reason(peer.Ask(&v1::CacheService::Stub::Renew, renew, &renewed)), "LEASE_UNKNOWN");
  EXPECT_GT(peer.Evict(handle)->pending_bytes(), 0U);
  EXPECT_THAT(peer.Release(*lease), IsOk());
  EXPECT_EQ(peer.Stat().allocated_bytes(), 0U);
}

TEST_F(CacheServiceTest, TheEndOfAProcessGivesBackWhatItHeld) {
  const auto keeper = Client();
  const arena::Handle handle = Publish(*keeper);
  const std::uint64_t before = manager().Stat().allocated_bytes;
  {
    CachePeer dying = Peer();
    v1::Handle message;
    services::ToProto(handle, message);
    ASSERT_THAT(dying.ReadDescriptor(*dying.Lease(message)), IsOk());
    ASSERT_THAT(dying.Reserve(100 * kPage), IsOk());
    EXPECT_EQ(dying.Stat().leases(), 1);
  }
  WaitUntil([&] { return manager().Stat().sessions == 1; });
  EXPECT_EQ(manager().Stat().leases, 0);
  EXPECT_EQ(manager().Stat().allocated_bytes, before);
}

TEST_F(CacheServiceTest, TenantsDoNotSeeEachOther) {
  const auto client = Client();
  const arena::Handle red = Publish(*client, "red", Key(1));
  EXPECT_EQ(Reason(Map(*client, red, "blue").status()), "HANDLE_UNKNOWN");
  const arena::Handle blue = Publish(*client, "blue", Key(1), /*seed=*/2);
  EXPECT_NE(red.entry_id, blue.entry_id);
  CachePeer peer = Peer("blue");
  v1::ListResponse listed;
  ASSERT_THAT(peer.Ask(&v1::CacheService::Stub::List, v1::ListRequest(), &listed), IsOk());
  ASSERT_EQ(listed.entries_size(), 1);
  EXPECT_EQ(listed.entries(0).handle().entry_id(), blue.entry_id);
  EXPECT_EQ(listed.entries(0).state(), v1::ENTRY_STATE_SEALED);
  MASKKV_ASSERT_OK_AND_ASSIGN(const auto entry, Map(*client, blue, "blue"));
  EXPECT_EQ(listed.entries(0).prompt_tokens(),
            entry->metadata().prompt_tokens + entry->metadata().suffix_tokens);
}

TEST_F(CacheServiceTest, AListComesInPages) {
  CachePeer peer = Peer();
  for (int i = 0; i < 5; ++i) ASSERT_THAT(peer.Reserve(1), IsOk());
  v1::ListRequest request;
  request.set_limit(2);
  std::vector<std::uint64_t> ids;
  v1::ListResponse listed;
  do {
    ASSERT_THAT(peer.Ask(&v1::CacheService::Stub::List, request, &listed), IsOk());
    for (const v1::EntryInfo& entry : listed.entries()) ids.push_back(entry.handle().entry_id());
    request.set_after_entry_id(ids.back());
  } while (listed.more());
  EXPECT_EQ(ids.size(), 5U);
  EXPECT_TRUE(std::ranges::is_sorted(ids));
}

TEST_F(CacheServiceTest, AnotherUserIsItsOwnTenantWhateverItSays) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can act as another user";
  ASSERT_EQ(::chmod(folder_.path().c_str(), 0711), 0);
  ASSERT_EQ(::chmod(socket_.c_str(), 0666), 0);
  CachePeer ours = Peer("uid-65534");  // what a service says is believed
  const v1::Handle of_the_stranger = ours.SmallEntry();
  ours.tenant = "red";
  const v1::Handle of_red = ours.SmallEntry();
  RunAsUser(kStranger, [&] {
    CachePeer stranger = Peer("red");
    EXPECT_EQ(Reason(stranger.Lease(of_red).status()), "HANDLE_UNKNOWN");
    EXPECT_THAT(stranger.Lease(of_the_stranger), IsOk());
  });
  WaitUntil([&] { return manager().Stat().sessions == 1; });

  ours.Disconnect();
  Stop();
  options_.service_uids = {kStranger};
  Start();
  ASSERT_EQ(::chmod(socket_.c_str(), 0666), 0);
  RunAsUser(kStranger, [&] {
    CachePeer service = Peer("red");
    const v1::Handle handle = service.SmallEntry();
    service.tenant = "blue";
    EXPECT_EQ(Reason(service.Lease(handle).status()), "HANDLE_UNKNOWN");
  });

  Stop();
  options_.service_uids = {};
  options_.tenants = {{kStranger, "team"}};
  Start();
  ASSERT_EQ(::chmod(socket_.c_str(), 0666), 0);
  RunAsUser(kStranger, [&] {
    CachePeer mapped = Peer("");
    const v1::Handle handle = mapped.SmallEntry();
    EXPECT_THAT(Peer("team").Lease(handle), IsOk());
  });
}

TEST_F(CacheServiceTest, TheSocketIsForItsUserAndGroupOnly) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can act as another user";
  ASSERT_EQ(::chmod(folder_.path().c_str(), 0711), 0);
  RunAsUser(kStranger, [&] {
    EXPECT_EQ(Reason(arena::DescriptorClient::Connect(socket_).status()), "CACHE_DOWN");
  });
}

// What the budget controller would get.
class Reports final : public services::PlanWatcher {
 public:
  std::shared_ptr<const budget::Plan> Current() const override { return nullptr; }
  void Report(const v1::ReportRequest& report) override {
    const std::lock_guard lock(mu_);
    reports_.push_back(report);
  }
  bool Has(const std::function<bool(const v1::CacheObservation&)>& wanted) {
    const std::lock_guard lock(mu_);
    return std::ranges::any_of(reports_, [&](const auto& r) { return wanted(r.cache()); });
  }

 private:
  std::mutex mu_;
  std::vector<v1::ReportRequest> reports_;  // guarded by mu_
};

TEST_F(CacheServiceTest, TheControllerIsToldOfPressure) {
  const auto reports = std::make_shared<Reports>();
  options_.controller = reports;
  StartWith(4 * kPage);
  CachePeer peer = Peer();
  ASSERT_THAT(peer.Reserve(4 * kPage), IsOk());
  EXPECT_EQ(Reason(peer.Reserve(1).status()), "CACHE_FULL");
  WaitUntil([&] {
    return reports->Has([](const v1::CacheObservation& cache) {
      return cache.capacity_bytes() == 4 * kPage && cache.allocated_bytes() == 4 * kPage &&
             cache.refused() == 1;
    });
  });
}

}  // namespace
}  // namespace maskkv::testing
