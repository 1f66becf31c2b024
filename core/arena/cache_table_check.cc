// SPDX-License-Identifier: Apache-2.0
//
// What the table tells of itself.
#include "core/arena/cache_table.h"
#include "core/base/check.h"

namespace maskkv::arena {

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

void CacheTable::CheckLeases() const {
  std::map<std::uint64_t, std::int64_t> records, leases, maps;
  std::size_t of_sessions = 0;
  for (const auto& [id, lease] : leases_) {
    const auto session = sessions_.find(lease.session);
    MASKKV_CHECK(session != sessions_.end() && session->second.leases.contains(id),
                 "a lease is of a living session");
    const auto entry = entries_.find(lease.entry_id);
    MASKKV_CHECK(entry != entries_.end() && entry->second.held.contains(id),
                 "a lease is of an entry");
    MASKKV_CHECK(!lease.expired || lease.mapped, "an expired lease is kept for its mapping");
    ++records[lease.entry_id];
    if (!lease.expired) ++leases[lease.entry_id];
    if (lease.mapped) ++maps[lease.entry_id];
  }
  for (const auto& [id, entry] : entries_) {
    MASKKV_CHECK(static_cast<std::int64_t>(entry.held.size()) == records[id], "leases are held");
    MASKKV_CHECK(entry.leases == leases[id] && entry.mapped == maps[id], "leases are counted");
  }
  for (const auto& [token, session] : sessions_) {
    of_sessions += session.leases.size();
    MASKKV_CHECK(session.leases.size() <= limits_.max_leases, "leases within their number");
    for (const std::uint64_t id : session.writes) {
      const auto entry = entries_.find(id);
      MASKKV_CHECK(entry != entries_.end() && entry->second.writer == token,
                   "a session writes its own reservations");
    }
  }
  MASKKV_CHECK(of_sessions == leases_.size(), "sessions know their leases");
}

void CacheTable::CheckEntry(const Entry& entry) const {
  MASKKV_CHECK(entry.bytes > 0 && entry.handle.epoch == epoch_, "an entry takes memory");
  const bool writing = entry.state == EntryState::kReserved || entry.state == EntryState::kSealing;
  MASKKV_CHECK(!writing || entry.held.empty(), "only sealed entries are leased");
  MASKKV_CHECK(writing == (entry.handle.version == 0), "a version is a sealing");
  const auto writer = sessions_.find(entry.writer);
  MASKKV_CHECK(
      entry.orphaned || !writing ||
          (writer != sessions_.end() && writer->second.writes.contains(entry.handle.entry_id)),
      "a reservation is of a living session");
  MASKKV_CHECK(entry.state != EntryState::kPending || (entry.mapped > 0 && entry.leases == 0),
               "a pending entry is mapped by somebody and leased by nobody");
  if (!entry.evictable()) return;
  MASKKV_CHECK(lru_.at(entry.used) == entry.handle.entry_id, "an evictable entry has its turn");
  MASKKV_CHECK(tenants_.at(entry.tenant).lru.at(entry.used) == entry.handle.entry_id,
               "and its tenant's");
}

void CacheTable::CheckInvariants() const {
  CheckLeases();
  // Everything that is counted on the way, counted anew.
  CacheTable fresh(limits_, owner_, epoch_, clock_, random_);
  fresh.stat_.sessions = static_cast<std::int64_t>(sessions_.size());
  for (const auto& [id, entry] : entries_) {
    MASKKV_CHECK(entry.handle.entry_id == id, "names agree");
    CheckEntry(entry);
    fresh.Count(entry, true);
  }
  MASKKV_CHECK(fresh.stat_ == stat_ && fresh.evictable_bytes_ == evictable_bytes_ &&
                   fresh.lru_ == lru_ && fresh.tenants_ == tenants_,
               "sums are those of the entries");
  MASKKV_CHECK(
      stat_.allocated_bytes <= limits_.capacity_bytes && entries_.size() <= limits_.max_entries,
      "entries within capacity");
  for (const auto& [name, tenant] : tenants_) {
    const Quota quota = QuotaOf(name);
    MASKKV_CHECK(tenant.charged <= quota.bytes && tenant.entries <= quota.entries,
                 "entries within the quota");
  }
  for (const auto& [key, id] : keys_) {
    const auto entry = entries_.find(id);
    MASKKV_CHECK(entry != entries_.end() && entry->second.state == EntryState::kSealed &&
                     entry->second.tenant == key.first && entry->second.key == key.second,
                 "a key leads to a sealed entry of its tenant");
  }
}

}  // namespace maskkv::arena
