// SPDX-License-Identifier: Apache-2.0
//
// Leases, evictions, and what is evictable.
#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/arena/cache_table.h"
#include "core/base/check.h"
#include "core/base/error.h"
#include "core/base/status_macros.h"

namespace maskkv::arena {
namespace {

absl::Status UnknownLease() {
  return MakeError(absl::StatusCode::kNotFound, "LEASE_UNKNOWN",
                   "lease_id: expected a lease of this connection, found another");
}

std::int64_t Milliseconds(Duration duration) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(duration).count();
}

}  // namespace

absl::StatusOr<Duration> CacheTable::CheckedTtl(Duration ttl) const {
  if (ttl == Duration::zero()) return limits_.default_ttl;
  if (ttl < limits_.min_ttl || ttl > limits_.max_ttl) {
    return MakeError(
        absl::StatusCode::kInvalidArgument, "INVALID_ARGUMENT",
        absl::StrFormat("ttl_ms: expected 0 or %d to %d, found %d", Milliseconds(limits_.min_ttl),
                        Milliseconds(limits_.max_ttl), Milliseconds(ttl)));
  }
  return ttl;
}

absl::StatusOr<LeaseGrant> CacheTable::Lease(const Caller& caller, const Handle& handle,
                                             Duration ttl) {
  MASKKV_ASSIGN_OR_RETURN(const Duration checked, CheckedTtl(ttl));
  MASKKV_ASSIGN_OR_RETURN(Entry * entry, Find(caller, handle));
  if (entry->state != EntryState::kSealed) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "NOT_SEALED",
                     "handle: expected a sealed entry, found a reserved one");
  }
  table::Session& session = sessions_.at(caller.session);
  if (session.leases.size() >= limits_.max_leases) {
    return MakeError(
        absl::StatusCode::kResourceExhausted, "TOO_MANY_LEASES",
        absl::StrFormat("lease: expected at most %d, found one more", limits_.max_leases));
  }
  LeaseGrant grant;
  random_(grant.id.bytes);
  grant.bytes = entry->bytes;
  grant.ttl = checked;
  table::LeaseRecord record;
  record.session = caller.session;
  record.entry_id = handle.entry_id;
  record.expires = clock_.Now() + checked;
  MASKKV_CHECK(leases_.emplace(grant.id, record).second, "128 random bits are new");
  session.leases.insert(grant.id);
  const Change change(*this, *entry);
  entry->held.insert(grant.id);
  ++entry->leases;
  Use(*entry);
  ++counters_.lookups_hit;
  return grant;
}

absl::StatusOr<CacheTable::Leases::iterator> CacheTable::FindLease(const SessionToken& session,
                                                                   const LeaseId& lease,
                                                                   bool expired_too) {
  const auto found = leases_.find(lease);
  if (found == leases_.end() || found->second.session != session ||
      (found->second.expired && !expired_too)) {
    return UnknownLease();
  }
  return found;
}

absl::StatusOr<std::uint64_t> CacheTable::ReadTarget(const SessionToken& session,
                                                     const LeaseId& lease) {
  const absl::StatusOr<Leases::iterator> found = FindLease(session, lease, false);
  if (!found.ok()) {
    ++counters_.shares_denied;
    return found.status();
  }
  ++counters_.shares_ok;
  table::LeaseRecord& record = (*found)->second;
  if (!record.mapped) {
    Entry& entry = entries_.at(record.entry_id);
    const Change change(*this, entry);
    record.mapped = true;
    ++entry.mapped;
  }
  return record.entry_id;
}

absl::StatusOr<Duration> CacheTable::Renew(const Caller& caller, const LeaseId& lease,
                                           Duration ttl) {
  MASKKV_ASSIGN_OR_RETURN(const Duration checked, CheckedTtl(ttl));
  MASKKV_ASSIGN_OR_RETURN(const auto found, FindLease(caller.session, lease, false));
  found->second.expires = clock_.Now() + checked;
  return checked;
}

absl::StatusOr<GoneEntries> CacheTable::Release(const Caller& caller, const LeaseId& lease) {
  MASKKV_ASSIGN_OR_RETURN(const auto found, FindLease(caller.session, lease, true));
  GoneEntries gone;
  EndLease(found, gone);
  return gone;
}

void CacheTable::EraseLease(Leases::iterator lease, Entry& entry) {
  entry.held.erase(lease->first);
  sessions_.at(lease->second.session).leases.erase(lease->first);
  leases_.erase(lease);
}

void CacheTable::EndLease(Leases::iterator lease, GoneEntries& gone) {
  const table::LeaseRecord record = lease->second;
  Entry& entry = entries_.at(record.entry_id);
  {
    const Change change(*this, entry);
    if (!record.expired) --entry.leases;
    if (record.mapped) --entry.mapped;
    Use(entry);
    EraseLease(lease, entry);
  }
  if (entry.state == EntryState::kPending && entry.mapped == 0) Erase(record.entry_id, gone);
}

void CacheTable::Expire(Leases::iterator lease, Entry& entry) {
  --entry.leases;
  lease->second.expired = true;
  if (!lease->second.mapped) EraseLease(lease, entry);
}

std::int64_t CacheTable::ExpireLeases() {
  const TimePoint now = clock_.Now();
  std::int64_t expired = 0;
  for (auto it = leases_.begin(); it != leases_.end();) {
    const auto lease = it++;
    if (lease->second.expired || lease->second.expires > now) continue;
    ++expired;
    Entry& entry = entries_.at(lease->second.entry_id);
    const Change change(*this, entry);
    Expire(lease, entry);
  }
  counters_.leases_expired += static_cast<std::uint64_t>(expired);
  return expired;
}

absl::StatusOr<EvictOutcome> CacheTable::Evict(const Caller& caller, const Handle& handle) {
  MASKKV_ASSIGN_OR_RETURN(Entry * entry, Find(caller, handle));
  if (entry->state != EntryState::kSealed) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "NOT_SEALED",
                     "handle: expected a sealed entry, found a reserved one");
  }
  EvictOutcome outcome;
  const std::uint64_t bytes = entry->bytes;
  EvictEntry(*entry, outcome.gone);
  ++counters_.evictions_request;
  outcome.entries = 1;
  (outcome.gone.empty() ? outcome.pending_bytes : outcome.freed_bytes) = bytes;
  return outcome;
}

EvictOutcome CacheTable::EvictAll(const Caller& caller) {
  std::vector<Handle> handles;
  for (const auto& [id, entry] : entries_) {
    if (entry.tenant == caller.tenant && entry.state == EntryState::kSealed) {
      handles.push_back(entry.handle);
    }
  }
  EvictOutcome all;
  for (const Handle& handle : handles) {
    const absl::StatusOr<EvictOutcome> one = Evict(caller, handle);
    MASKKV_CHECK(one.ok(), "the entry was just seen");
    all.entries += one->entries;
    all.freed_bytes += one->freed_bytes;
    all.pending_bytes += one->pending_bytes;
    all.gone.insert(all.gone.end(), one->gone.begin(), one->gone.end());
  }
  return all;
}

void CacheTable::Use(Entry& entry) {
  entry.used = next_use_++;
  entry.last_use = clock_.Now();
}

void CacheTable::Count(const Entry& entry, bool in) {
  const auto sum = [in](auto& total, auto part) { in ? total += part : total -= part; };
  Tenant& tenant = tenants_[entry.tenant];
  sum(stat_.allocated_bytes, entry.bytes);
  sum(tenant.charged, entry.bytes);
  sum(tenant.entries, std::size_t{1});
  sum(stat_.leases, entry.leases);
  if (entry.leases > 0) sum(stat_.leased_bytes, entry.bytes);
  switch (entry.state) {
    case EntryState::kReserved:
    case EntryState::kSealing:
      sum(stat_.reserved_entries, 1);
      break;
    case EntryState::kSealed:
      sum(stat_.sealed_entries, 1);
      break;
    case EntryState::kPending:
      sum(stat_.pending_entries, 1);
      sum(stat_.pending_bytes, entry.bytes);
      break;
  }
  if (!entry.evictable()) return;
  sum(evictable_bytes_, entry.bytes);
  sum(tenant.evictable_bytes, entry.bytes);
  for (auto* const turns : {&lru_, &tenant.lru}) {
    in ? void(turns->emplace(entry.used, entry.handle.entry_id)) : void(turns->erase(entry.used));
  }
}

void CacheTable::Unfind(Entry& entry) {
  if (!entry.key) return;
  const auto key = keys_.find({entry.tenant, *entry.key});
  if (key != keys_.end() && key->second == entry.handle.entry_id) keys_.erase(key);
}

void CacheTable::EvictEntry(Entry& entry, GoneEntries& gone) {
  Unfind(entry);
  {
    const Change change(*this, entry);
    // Leases end: nobody may ask for a descriptor again. Who maps it stays written down.
    for (const LeaseId& id : std::set(entry.held)) {
      const auto lease = leases_.find(id);
      if (!lease->second.expired) Expire(lease, entry);
    }
    entry.state = EntryState::kPending;
  }
  if (entry.mapped == 0) Erase(entry.handle.entry_id, gone);
}

void CacheTable::Erase(std::uint64_t entry_id, GoneEntries& gone) {
  Entry& entry = entries_.at(entry_id);
  Count(entry, false);
  const auto tenant = tenants_.find(entry.tenant);
  if (tenant->second.entries == 0) tenants_.erase(tenant);
  const auto session = sessions_.find(entry.writer);
  if (session != sessions_.end()) session->second.writes.erase(entry_id);
  entries_.erase(entry_id);
  gone.push_back(entry_id);
}

}  // namespace maskkv::arena
