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
                   "lease_id: expected a lease of this session, found another");
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
  if (leases_.size() >= limits_.max_leases) {
    return MakeError(
        absl::StatusCode::kResourceExhausted, "TOO_MANY_LEASES",
        absl::StrFormat("lease: expected at most %d, found one more", limits_.max_leases));
  }
  LeaseGrant grant;
  random_(grant.id.bytes);
  grant.bytes = entry->bytes;
  grant.ttl = checked;
  LeaseRecord record;
  record.session = caller.session;
  record.tenant = caller.tenant;
  record.entry_id = handle.entry_id;
  record.expires = clock_.Now() + checked;
  MASKKV_CHECK(leases_.emplace(grant.id, std::move(record)).second, "128 random bits are new");
  ++entry->leases;
  ++counters_.lookups_hit;
  Touch(*entry);
  return grant;
}

absl::StatusOr<std::map<LeaseId, CacheTable::LeaseRecord>::iterator> CacheTable::FindLease(
    const SessionToken& session, const LeaseId& lease, bool expired_too) {
  const auto found = leases_.find(lease);
  if (found == leases_.end() || found->second.session != session ||
      (found->second.expired && !expired_too)) {
    return UnknownLease();
  }
  return found;
}

absl::StatusOr<std::uint64_t> CacheTable::ReadTarget(const SessionToken& session,
                                                     const LeaseId& lease) {
  MASKKV_ASSIGN_OR_RETURN(const auto found, FindLease(session, lease, false));
  Entry& entry = entries_.at(found->second.entry_id);
  if (!found->second.mapped) {
    found->second.mapped = true;
    ++entry.mapped_by[session];
  }
  return found->second.entry_id;
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

void CacheTable::EndLease(std::map<LeaseId, LeaseRecord>::iterator lease, GoneEntries& gone) {
  const LeaseRecord record = std::move(lease->second);
  leases_.erase(lease);
  Entry& entry = entries_.at(record.entry_id);
  if (!record.expired) --entry.leases;
  Touch(entry);
  if (record.mapped) Unmap(entry, record.session, 1, gone);
}

std::int64_t CacheTable::ExpireLeases() {
  const TimePoint now = clock_.Now();
  std::int64_t expired = 0;
  for (auto it = leases_.begin(); it != leases_.end();) {
    LeaseRecord& lease = it->second;
    if (lease.expired || lease.expires > now) {
      ++it;
      continue;
    }
    ++expired;
    Entry& entry = entries_.at(lease.entry_id);
    --entry.leases;
    lease.expired = true;
    it = lease.mapped ? std::next(it) : leases_.erase(it);
    Refresh(entry);
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

void CacheTable::Touch(Entry& entry) {
  if (entry.evictable) {
    lru_.erase(entry.used);
    tenants_.at(entry.tenant).lru.erase(entry.used);
    entry.evictable = false;
    evictable_bytes_ -= entry.bytes;
    tenants_.at(entry.tenant).evictable_bytes -= entry.bytes;
  }
  entry.used = next_use_++;
  entry.last_use = clock_.Now();
  Refresh(entry);
}

void CacheTable::Refresh(Entry& entry) {
  const bool evictable =
      entry.state == EntryState::kSealed && entry.leases == 0 && entry.mapped_by.empty();
  if (evictable == entry.evictable) return;
  Tenant& tenant = tenants_.at(entry.tenant);
  entry.evictable = evictable;
  if (evictable) {
    lru_.emplace(entry.used, entry.handle.entry_id);
    tenant.lru.emplace(entry.used, entry.handle.entry_id);
    evictable_bytes_ += entry.bytes;
    tenant.evictable_bytes += entry.bytes;
  } else {
    lru_.erase(entry.used);
    tenant.lru.erase(entry.used);
    evictable_bytes_ -= entry.bytes;
    tenant.evictable_bytes -= entry.bytes;
  }
}

void CacheTable::Unfind(Entry& entry) {
  if (!entry.key) return;
  const auto key = keys_.find({entry.tenant, *entry.key});
  if (key != keys_.end() && key->second == entry.handle.entry_id) keys_.erase(key);
}

void CacheTable::EvictEntry(Entry& entry, GoneEntries& gone) {
  const std::uint64_t id = entry.handle.entry_id;
  Unfind(entry);
  // Leases end: nobody may ask for a descriptor again. Who maps it stays written down.
  for (auto it = leases_.begin(); entry.leases > 0 && it != leases_.end();) {
    LeaseRecord& lease = it->second;
    if (lease.entry_id != id || lease.expired) {
      ++it;
      continue;
    }
    --entry.leases;
    lease.expired = true;
    it = lease.mapped ? std::next(it) : leases_.erase(it);
  }
  if (entry.mapped_by.empty()) {
    Erase(id, gone);
    return;
  }
  entry.state = EntryState::kPending;
  Refresh(entry);
}

void CacheTable::Unmap(Entry& entry, const SessionToken& session, int count, GoneEntries& gone) {
  const auto mapped = entry.mapped_by.find(session);
  MASKKV_CHECK(mapped != entry.mapped_by.end() && mapped->second >= count,
               "what is unmapped was mapped");
  mapped->second -= count;
  if (mapped->second == 0) entry.mapped_by.erase(mapped);
  if (entry.mapped_by.empty() && entry.state == EntryState::kPending) {
    Erase(entry.handle.entry_id, gone);
  } else {
    Refresh(entry);
  }
}

void CacheTable::Erase(std::uint64_t entry_id, GoneEntries& gone) {
  Entry& entry = entries_.at(entry_id);
  Unfind(entry);
  entry.state = EntryState::kPending;  // not evictable any more
  Refresh(entry);
  Recharge(entry, 0);
  const auto tenant = tenants_.find(entry.tenant);
  if (tenant->second.charged == 0) tenants_.erase(tenant);
  entries_.erase(entry_id);
  gone.push_back(entry_id);
}

}  // namespace maskkv::arena
