// SPDX-License-Identifier: Apache-2.0
//
// What the cache table (cache_table.h) writes down, one record a thing. For its sources only.
#ifndef MASKKV_CORE_ARENA_CACHE_TABLE_RECORDS_H_
#define MASKKV_CORE_ARENA_CACHE_TABLE_RECORDS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "core/arena/cache_records.h"
#include "core/arena/handle.h"
#include "core/base/clock.h"

namespace maskkv::arena::table {

struct Entry {
  Handle handle;
  EntryState state = EntryState::kReserved;
  std::string tenant;
  std::optional<Digest> key;
  std::uint64_t bytes = 0;  // charged
  EntryFacts facts;
  SessionToken writer;      // while RESERVED or SEALING
  bool orphaned = false;    // SEALING, and its writer's session has ended
  std::set<LeaseId> held;   // its leases, also those that expired while they were mapped
  std::int64_t leases = 0;  // of those, not expired
  std::int64_t mapped = 0;  // of those, mapped
  std::uint64_t used = 0;   // order of use: of evictable entries the key of their turn
  TimePoint last_use;

  bool evictable() const { return state == EntryState::kSealed && leases == 0 && mapped == 0; }
};

struct Session {
  SessionIdentity identity;
  std::set<LeaseId> leases;        // as Entry.held
  std::set<std::uint64_t> writes;  // RESERVED and SEALING entries
};

struct LeaseRecord {
  SessionToken session;
  std::uint64_t entry_id = 0;
  TimePoint expires;
  bool expired = false;  // kept only while it is mapped
  bool mapped = false;   // its session was given a descriptor
};

// Sums over a tenant's entries. There as long as it has one.
struct Tenant {
  std::uint64_t charged = 0;
  std::uint64_t evictable_bytes = 0;
  std::size_t entries = 0;
  std::map<std::uint64_t, std::uint64_t> lru;  // evictable ones: order of use -> entry

  bool operator==(const Tenant&) const = default;
};

}  // namespace maskkv::arena::table

#endif  // MASKKV_CORE_ARENA_CACHE_TABLE_RECORDS_H_
