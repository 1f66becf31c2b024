// SPDX-License-Identifier: Apache-2.0
//
// What the table tells of itself.
#include "core/arena/cache_table.h"
#include "core/base/check.h"

namespace maskkv::arena {

CacheStat CacheTable::Stat() const {
  CacheStat stat;
  stat.capacity_bytes = limits_.capacity_bytes;
  stat.allocated_bytes = charged_;
  for (const auto& [id, entry] : entries_) {
    if (entry.leases > 0) stat.leased_bytes += entry.bytes;
    stat.leases += entry.leases;
    switch (entry.state) {
      case EntryState::kReserved:
      case EntryState::kSealing:
        ++stat.reserved_entries;
        break;
      case EntryState::kSealed:
        ++stat.sealed_entries;
        break;
      case EntryState::kPending:
        ++stat.pending_entries;
        stat.pending_bytes += entry.bytes;
        break;
    }
  }
  stat.sessions = static_cast<std::int64_t>(sessions_.size());
  return stat;
}

std::vector<ListedEntry> CacheTable::List(const Caller& caller, std::uint64_t after,
                                          std::size_t limit) const {
  std::vector<ListedEntry> listed;
  const TimePoint now = clock_.Now();
  for (auto it = entries_.upper_bound(after); it != entries_.end() && listed.size() < limit; ++it) {
    const Entry& entry = it->second;
    if (entry.tenant != caller.tenant) continue;
    listed.push_back(
        {entry.handle, entry.state, entry.bytes, entry.leases, now - entry.last_use, entry.facts});
  }
  return listed;
}

void CacheTable::CheckInvariants() const {
  std::uint64_t charged = 0, evictable_bytes = 0;
  std::size_t evictable = 0;
  std::map<std::string, std::uint64_t> by_tenant;
  std::map<std::uint64_t, std::int64_t> leases, maps;
  for (const auto& [id, lease] : leases_) {
    MASKKV_CHECK(sessions_.contains(lease.session), "a lease is of a living session");
    MASKKV_CHECK(entries_.contains(lease.entry_id), "a lease is of an entry");
    MASKKV_CHECK(!lease.expired || lease.mapped, "an expired lease is kept for its mapping");
    if (!lease.expired) ++leases[lease.entry_id];
    if (lease.mapped) ++maps[lease.entry_id];
  }
  for (const auto& [id, entry] : entries_) {
    MASKKV_CHECK(entry.handle.entry_id == id && entry.handle.epoch == epoch_, "names agree");
    MASKKV_CHECK(entry.bytes > 0, "an entry takes memory");
    charged += entry.bytes;
    by_tenant[entry.tenant] += entry.bytes;
    MASKKV_CHECK(entry.leases == leases[id], "leases are counted");
    std::int64_t mapped = 0;
    for (const auto& [session, count] : entry.mapped_by) {
      MASKKV_CHECK(sessions_.contains(session) && count > 0, "a mapping is of a living session");
      mapped += count;
    }
    const bool writing =
        entry.state == EntryState::kReserved || entry.state == EntryState::kSealing;
    MASKKV_CHECK(writing || mapped == maps[id], "a sealed entry is mapped through its leases");
    MASKKV_CHECK(!writing || entry.leases == 0, "only sealed entries are leased");
    MASKKV_CHECK(writing == (entry.handle.version == 0), "a version is a sealing");
    MASKKV_CHECK(entry.orphaned || !writing || sessions_.contains(entry.writer),
                 "a reservation is of a living session");
    MASKKV_CHECK(entry.state != EntryState::kPending || mapped > 0,
                 "a pending entry is mapped by somebody");
    MASKKV_CHECK(entry.evictable == (entry.state == EntryState::kSealed && entry.leases == 0 &&
                                     entry.mapped_by.empty()),
                 "evictable: sealed, not leased, not mapped");
    if (entry.evictable) {
      ++evictable;
      evictable_bytes += entry.bytes;
      MASKKV_CHECK(lru_.at(entry.used) == id, "an evictable entry has its turn");
      MASKKV_CHECK(tenants_.at(entry.tenant).lru.at(entry.used) == id, "and its tenant's");
    }
  }
  MASKKV_CHECK(charged == charged_ && charged_ <= limits_.capacity_bytes, "bytes within capacity");
  MASKKV_CHECK(evictable == lru_.size() && evictable_bytes == evictable_bytes_,
               "turns are counted");
  for (const auto& [name, tenant] : tenants_) {
    MASKKV_CHECK(tenant.charged == by_tenant[name] && tenant.charged > 0, "a tenant's bytes");
    MASKKV_CHECK(tenant.charged <= QuotaOf(name), "bytes within the quota");
  }
  for (const auto& [key, id] : keys_) {
    const auto entry = entries_.find(id);
    MASKKV_CHECK(entry != entries_.end() && entry->second.state == EntryState::kSealed &&
                     entry->second.tenant == key.first && entry->second.key == key.second,
                 "a key leads to a sealed entry of its tenant");
  }
}

}  // namespace maskkv::arena
