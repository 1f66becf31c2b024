// SPDX-License-Identifier: Apache-2.0
//
// Sessions, reserving and sealing. cache_table_leases.cc: leases and evictions;
// cache_table_check.cc: views and invariants.
#include "core/arena/cache_table.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/check.h"
#include "core/base/error.h"
#include "core/base/status_macros.h"

namespace maskkv::arena {
namespace {

// How long a caller that found no room should wait: some steps of the requests that hold it.
constexpr std::chrono::milliseconds kRetryHint(250);

std::uint64_t RoundUp(std::uint64_t bytes, std::uint64_t page) {
  return (bytes + page - 1) / page * page;
}

absl::Status UnknownHandle() {
  return MakeError(absl::StatusCode::kNotFound, "HANDLE_UNKNOWN",
                   "handle: expected one of an entry that is there, found another");
}

}  // namespace

CacheTable::CacheTable(CacheLimits limits, std::string owner, std::uint64_t epoch,
                       const Clock& clock, Random random)
    : limits_(std::move(limits)),
      owner_(std::move(owner)),
      epoch_(epoch),
      clock_(clock),
      random_(std::move(random)) {}

template <typename Id>
Id CacheTable::RandomId() {
  Id id;
  random_(id.bytes);
  return id;
}

absl::StatusOr<SessionToken> CacheTable::OpenSession(const SessionIdentity& identity) {
  if (sessions_.size() >= limits_.max_sessions) {
    return MakeError(
        absl::StatusCode::kResourceExhausted, "TOO_MANY_SESSIONS",
        absl::StrFormat("session: expected at most %d, found one more", limits_.max_sessions));
  }
  const auto token = RandomId<SessionToken>();
  MASKKV_CHECK(sessions_.emplace(token, identity).second, "128 random bits are new");
  return token;
}

GoneEntries CacheTable::CloseSession(const SessionToken& token) {
  GoneEntries gone;
  if (sessions_.erase(token) == 0) return gone;
  for (auto lease = leases_.begin(); lease != leases_.end();) {
    const auto next = std::next(lease);
    if (lease->second.session == token) EndLease(lease, gone);
    lease = next;
  }
  for (auto it = entries_.begin(); it != entries_.end();) {
    Entry& entry = it->second;
    const std::uint64_t id = (it++)->first;
    const bool writes = entry.writer == token;
    if (writes && entry.state == EntryState::kReserved) {
      Erase(id, gone);
    } else {
      if (writes && entry.state == EntryState::kSealing) entry.orphaned = true;
      const auto mapped = entry.mapped_by.find(token);
      if (mapped != entry.mapped_by.end()) Unmap(entry, token, mapped->second, gone);
    }
  }
  return gone;
}

absl::StatusOr<Caller> CacheTable::Authenticate(const SessionToken& token,
                                                const std::string& tenant) const {
  const auto session = sessions_.find(token);
  if (session == sessions_.end()) {
    return MakeError(absl::StatusCode::kUnauthenticated, "NO_SESSION",
                     "session: expected the token of an open session, found another");
  }
  const SessionIdentity& identity = session->second;
  return Caller{token, identity.is_service && !tenant.empty() ? tenant : identity.tenant};
}

std::uint64_t CacheTable::QuotaOf(const std::string& tenant) const {
  const auto own = limits_.quotas.find(tenant);
  if (own != limits_.quotas.end()) return own->second;
  return limits_.quota_bytes == 0 ? limits_.capacity_bytes : limits_.quota_bytes;
}

absl::StatusOr<CacheTable::Entry*> CacheTable::Find(const Caller& caller, const Handle& handle) {
  if (handle.owner != owner_) {
    ++counters_.lookups_denied;
    return UnknownHandle();
  }
  if (handle.epoch != epoch_) {
    ++counters_.lookups_stale;
    return MakeError(absl::StatusCode::kAborted, "EPOCH_MOVED",
                     "handle: expected one of this life of the cache manager, found an earlier");
  }
  const auto found = entries_.find(handle.entry_id);
  if (found == entries_.end() || found->second.handle.nonce != handle.nonce ||
      found->second.tenant != caller.tenant || found->second.state == EntryState::kPending) {
    ++counters_.lookups_denied;
    return UnknownHandle();
  }
  if (found->second.handle.version != handle.version) {
    ++counters_.lookups_stale;
    return MakeError(absl::StatusCode::kAborted, "EPOCH_MOVED",
                     "handle: expected the entry's version, found another");
  }
  return &found->second;
}

absl::Status CacheTable::MakeRoom(const std::string& tenant, std::uint64_t bytes,
                                  GoneEntries& gone) {
  const auto found = tenants_.find(tenant);
  const std::uint64_t unevictable =
      found == tenants_.end() ? 0 : found->second.charged - found->second.evictable_bytes;
  const std::uint64_t quota = QuotaOf(tenant);
  if (bytes > quota || bytes > limits_.capacity_bytes) {
    ++counters_.allocations_too_large;
    return MakeError(absl::StatusCode::kResourceExhausted, "ENTRY_TOO_LARGE",
                     absl::StrFormat("max_bytes: expected at most %d, found %d",
                                     std::min(quota, limits_.capacity_bytes), bytes),
                     {{"limit", std::to_string(std::min(quota, limits_.capacity_bytes))}});
  }
  // Nothing is evicted for a reservation that fails: both bounds are looked at first.
  // A quota that is no less than the capacity never binds first.
  const bool quota_full = quota < limits_.capacity_bytes && unevictable + bytes > quota;
  if (quota_full || charged_ - evictable_bytes_ + bytes > limits_.capacity_bytes) {
    ++(quota_full ? counters_.allocations_quota : counters_.allocations_full);
    return WithRetryAfter(
        MakeError(absl::StatusCode::kResourceExhausted,
                  quota_full ? "QUOTA_EXCEEDED" : "CACHE_FULL",
                  quota_full ? "cache: expected room within the tenant's quota, found none"
                             : "cache: expected room, found every entry in use"),
        kRetryHint);
  }
  // A tenant without bytes has no record, so each turn looks it up.
  const auto own_oldest = [&]() -> std::optional<std::uint64_t> {
    const auto record = tenants_.find(tenant);
    if (record == tenants_.end() || record->second.lru.empty()) return std::nullopt;
    return record->second.lru.begin()->second;
  };
  const auto own_charged = [&] {
    const auto record = tenants_.find(tenant);
    return record == tenants_.end() ? std::uint64_t{0} : record->second.charged;
  };
  while (own_charged() + bytes > quota) {
    ++counters_.evictions_quota;
    EvictEntry(entries_.at(*own_oldest()), gone);
  }
  while (charged_ + bytes > limits_.capacity_bytes) {
    ++counters_.evictions_capacity;
    EvictEntry(entries_.at(own_oldest().value_or(lru_.begin()->second)), gone);
  }
  return absl::OkStatus();
}

absl::StatusOr<ReserveOutcome> CacheTable::Reserve(const Caller& caller,
                                                   const std::optional<Digest>& key,
                                                   std::uint64_t max_bytes, bool ignore_cached) {
  if (max_bytes == 0) {
    return MakeError(absl::StatusCode::kInvalidArgument, "INVALID_ARGUMENT",
                     "max_bytes: expected at least 1, found 0");
  }
  if (key && !ignore_cached) {
    const auto found = keys_.find({caller.tenant, *key});
    if (found != keys_.end()) {
      ++counters_.lookups_hit;
      Entry& entry = entries_.at(found->second);
      Touch(entry);
      return ReserveOutcome{true, entry.handle, entry.bytes, {}};
    }
    ++counters_.lookups_miss;
  }
  ReserveOutcome outcome;
  // Beyond the capacity it fails, before rounding could overflow.
  outcome.bytes = max_bytes > limits_.capacity_bytes ? max_bytes : RoundUp(max_bytes, limits_.page);
  MASKKV_RETURN_IF_ERROR(MakeRoom(caller.tenant, outcome.bytes, outcome.gone));
  const std::uint64_t id = next_entry_++;
  Entry& entry = entries_[id];
  std::uint64_t nonce = 0;
  random_(std::as_writable_bytes(std::span(&nonce, 1)));
  entry.handle = {owner_, epoch_, id, 0, nonce};
  entry.tenant = caller.tenant;
  entry.key = key;
  entry.writer = caller.session;
  Recharge(entry, outcome.bytes);
  Touch(entry);
  ++counters_.allocations_ok;
  outcome.handle = entry.handle;
  return outcome;
}

absl::StatusOr<std::uint64_t> CacheTable::WriteTarget(const SessionToken& session,
                                                      std::uint64_t entry_id, std::uint64_t nonce) {
  const auto found = entries_.find(entry_id);
  if (found == entries_.end() || found->second.handle.nonce != nonce ||
      found->second.writer != session || found->second.state != EntryState::kReserved) {
    ++counters_.lookups_denied;
    return UnknownHandle();
  }
  ++found->second.mapped_by[session];
  return entry_id;
}

absl::StatusOr<std::uint64_t> CacheTable::BeginSeal(const Caller& caller, const Handle& handle,
                                                    std::uint64_t used_bytes) {
  MASKKV_ASSIGN_OR_RETURN(Entry * entry, Find(caller, handle));
  if (entry->writer != caller.session) return UnknownHandle();
  if (entry->state != EntryState::kReserved) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "NOT_RESERVED",
                     "handle: expected a reserved entry, found one that is being sealed");
  }
  if (used_bytes == 0 || used_bytes > entry->bytes) {
    return MakeError(
        absl::StatusCode::kInvalidArgument, "INVALID_ARGUMENT",
        absl::StrFormat("used_bytes: expected 1 to %d, found %d", entry->bytes, used_bytes));
  }
  entry->state = EntryState::kSealing;
  return entry->handle.entry_id;
}

absl::StatusOr<Handle> CacheTable::FinishSeal(std::uint64_t entry_id, std::uint64_t bytes,
                                              const EntryFacts& facts) {
  Entry& entry = entries_.at(entry_id);
  MASKKV_CHECK(entry.state == EntryState::kSealing, "sealing ends once");
  MASKKV_CHECK(bytes <= entry.bytes, "sealing gives back, it does not take");
  if (entry.orphaned) return UnknownHandle();  // AbortSeal erases it
  entry.mapped_by.clear();  // nobody maps it writable, or it could not have been sealed
  entry.writer = {};
  entry.state = EntryState::kSealed;
  entry.handle.version = 1;
  entry.facts = facts;
  Recharge(entry, bytes);
  if (entry.key) {
    const auto [key, fresh] = keys_.try_emplace({entry.tenant, *entry.key}, entry_id);
    if (!fresh) {
      entries_.at(key->second).key.reset();
      key->second = entry_id;
    }
  }
  Touch(entry);
  return entry.handle;
}

GoneEntries CacheTable::AbortSeal(std::uint64_t entry_id, bool keep) {
  GoneEntries gone;
  Entry& entry = entries_.at(entry_id);
  MASKKV_CHECK(entry.state == EntryState::kSealing, "sealing ends once");
  if (keep && !entry.orphaned) {
    entry.state = EntryState::kReserved;
  } else {
    Erase(entry_id, gone);
  }
  return gone;
}

absl::StatusOr<GoneEntries> CacheTable::Drop(const Caller& caller, const Handle& handle) {
  MASKKV_ASSIGN_OR_RETURN(Entry * entry, Find(caller, handle));
  if (entry->writer != caller.session) return UnknownHandle();
  if (entry->state != EntryState::kReserved) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "NOT_RESERVED",
                     "reservation: expected a reserved entry, found one that is being sealed");
  }
  GoneEntries gone;
  Erase(handle.entry_id, gone);
  return gone;
}

void CacheTable::Recharge(Entry& entry, std::uint64_t bytes) {
  Tenant& tenant = tenants_[entry.tenant];
  charged_ += bytes - entry.bytes;  // modulo 2^64, as intended
  tenant.charged += bytes - entry.bytes;
  entry.bytes = bytes;
}

}  // namespace maskkv::arena
