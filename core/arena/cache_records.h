// SPDX-License-Identifier: Apache-2.0
//
// Values that go in and out of the cache manager: limits, identities, outcomes, counters.
#ifndef MASKKV_CORE_ARENA_CACHE_RECORDS_H_
#define MASKKV_CORE_ARENA_CACHE_RECORDS_H_

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/arena/handle.h"
#include "core/base/clock.h"

namespace maskkv::arena {

struct CacheLimits {
  std::uint64_t capacity_bytes = 0;
  std::uint64_t quota_bytes = 0;                // of a tenant; 0: the capacity
  std::map<std::string, std::uint64_t> quotas;  // of tenants that have their own
  Duration default_ttl = std::chrono::seconds(60);
  Duration min_ttl = std::chrono::seconds(1);
  Duration max_ttl = std::chrono::hours(1);
  std::size_t max_sessions = 256;
  std::size_t max_leases = 4096;   // of a session
  std::size_t max_entries = 8192;  // each is a descriptor; a tenant's part is that of its quota
  std::uint64_t page = 4096;       // bytes are charged in whole pages
};

// Where a session comes from: the credentials of its connection.
struct SessionIdentity {
  std::uint32_t uid = 0;
  std::string tenant;       // whose entries it reads and writes
  bool is_service = false;  // may name another tenant with each call

  bool operator==(const SessionIdentity&) const = default;
};

// Who a call is made by and for, after authentication.
struct Caller {
  SessionToken session;
  std::string tenant;
};

enum class EntryState : std::uint8_t { kReserved, kSealing, kSealed, kPending };

// What the daemon read of an entry when it sealed it.
struct EntryFacts {
  std::int64_t prompt_tokens = 0;
  std::int64_t pairs = 0;

  bool operator==(const EntryFacts&) const = default;
};

// Entries whose memory is to be given back.
using GoneEntries = std::vector<std::uint64_t>;

struct ReserveOutcome {
  bool cached = false;  // the handle is of a sealed entry, else of a reservation
  Handle handle;
  std::uint64_t bytes = 0;  // charged
  GoneEntries gone;         // evicted to make room
};

struct LeaseGrant {
  LeaseId id;
  std::uint64_t bytes = 0;
  Duration ttl{};
};

struct EvictOutcome {
  std::int64_t entries = 0;
  std::uint64_t freed_bytes = 0;
  std::uint64_t pending_bytes = 0;
  GoneEntries gone;
};

struct ListedEntry {
  Handle handle;
  EntryState state = EntryState::kReserved;
  std::uint64_t bytes = 0;
  std::int64_t leases = 0;
  Duration idle{};
  EntryFacts facts;
};

struct CacheStat {
  std::uint64_t capacity_bytes = 0;
  std::uint64_t allocated_bytes = 0;
  std::uint64_t leased_bytes = 0;
  std::uint64_t pending_bytes = 0;
  std::int64_t reserved_entries = 0;  // being sealed too
  std::int64_t sealed_entries = 0;
  std::int64_t pending_entries = 0;
  std::int64_t leases = 0;
  std::int64_t sessions = 0;

  bool operator==(const CacheStat&) const = default;
};

// Since the start.
struct CacheCounters {
  std::uint64_t allocations_ok = 0, allocations_full = 0, allocations_quota = 0,
                allocations_too_large = 0;
  std::uint64_t evictions_capacity = 0, evictions_quota = 0, evictions_request = 0;
  std::uint64_t lookups_hit = 0, lookups_miss = 0, lookups_stale = 0, lookups_denied = 0;
  std::uint64_t leases_expired = 0;
  std::uint64_t shares_ok = 0, shares_denied = 0;  // descriptors asked for
};

}  // namespace maskkv::arena

#endif  // MASKKV_CORE_ARENA_CACHE_RECORDS_H_
