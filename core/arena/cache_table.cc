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
      random_(std::move(random)) {
  stat_.capacity_bytes = limits_.capacity_bytes;
}

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
  MASKKV_CHECK(sessions_.emplace(token, table::Session{identity, {}, {}}).second,
               "128 random bits are new");
  ++stat_.sessions;
  return token;
}

GoneEntries CacheTable::CloseSession(const SessionToken& token) {
  GoneEntries gone;
  const auto session = sessions_.find(token);
  if (session == sessions_.end()) return gone;
  while (!session->second.leases.empty()) {
    EndLease(leases_.find(*session->second.leases.begin()), gone);
  }
  for (const std::uint64_t id : std::set(session->second.writes)) {
    Entry& entry = entries_.at(id);
    if (entry.state == EntryState::kReserved) {
      Erase(id, gone);
    } else {
      entry.orphaned = true;
    }
  }
  sessions_.erase(session);
  --stat_.sessions;
  return gone;
}

absl::StatusOr<Caller> CacheTable::Authenticate(const SessionToken& token,
                                                const std::string& tenant) const {
  const auto session = sessions_.find(token);
  if (session == sessions_.end()) {
    return MakeError(absl::StatusCode::kUnauthenticated, "NO_SESSION",
                     "session: expected the token of an open session, found another");
  }
  const SessionIdentity& identity = session->second.identity;
  return Caller{token, identity.is_service && !tenant.empty() ? tenant : identity.tenant};
}

CacheTable::Quota CacheTable::QuotaOf(const std::string& tenant) const {
  const auto own = limits_.quotas.find(tenant);
  const std::uint64_t given = own != limits_.quotas.end() ? own->second : limits_.quota_bytes;
  if (given == 0 || given >= limits_.capacity_bytes) {
    return {limits_.capacity_bytes, limits_.max_entries};
  }
  const double share = static_cast<double>(given) / static_cast<double>(limits_.capacity_bytes);
  const double entries = share * static_cast<double>(limits_.max_entries);
  return {given, std::max<std::size_t>(1, static_cast<std::size_t>(entries))};
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

// Nothing is evicted for a reservation that fails: all bounds are looked at first.
absl::Status CacheTable::CheckRoom(const std::string& tenant, std::uint64_t bytes) {
  const Quota quota = QuotaOf(tenant);
  if (bytes > quota.bytes) {
    ++counters_.allocations_too_large;
    return MakeError(
        absl::StatusCode::kResourceExhausted, "ENTRY_TOO_LARGE",
        absl::StrFormat("max_bytes: expected at most %d, found %d", quota.bytes, bytes),
        {{"limit", std::to_string(quota.bytes)}});
  }
  static const Tenant kNone;
  const auto record = tenants_.find(tenant);
  const Tenant& own = record == tenants_.end() ? kNone : record->second;
  // A quota that is no less than the capacity never binds first.
  const bool quota_full = quota.bytes < limits_.capacity_bytes &&
                          (own.charged - own.evictable_bytes + bytes > quota.bytes ||
                           own.entries - own.lru.size() >= quota.entries);
  if (quota_full || stat_.allocated_bytes - evictable_bytes_ + bytes > limits_.capacity_bytes ||
      entries_.size() - lru_.size() >= limits_.max_entries) {
    ++(quota_full ? counters_.allocations_quota : counters_.allocations_full);
    return WithRetryAfter(
        MakeError(absl::StatusCode::kResourceExhausted,
                  quota_full ? "QUOTA_EXCEEDED" : "CACHE_FULL",
                  quota_full ? "cache: expected room within the tenant's quota, found none"
                             : "cache: expected room, found every entry in use"),
        kRetryHint);
  }
  return absl::OkStatus();
}

void CacheTable::MakeRoom(const std::string& tenant, std::uint64_t bytes, GoneEntries& gone) {
  const Quota quota = QuotaOf(tenant);
  // Erasing a tenant's last entry erases the tenant, so each turn looks it up.
  const auto own = [&]() -> const Tenant* {
    const auto record = tenants_.find(tenant);
    return record == tenants_.end() ? nullptr : &record->second;
  };
  const bool binds = quota.bytes < limits_.capacity_bytes;  // before the capacity does
  while (binds && own() != nullptr &&
         (own()->charged + bytes > quota.bytes || own()->entries >= quota.entries)) {
    ++counters_.evictions_quota;
    EvictEntry(entries_.at(own()->lru.begin()->second), gone);
  }
  while (stat_.allocated_bytes + bytes > limits_.capacity_bytes ||
         entries_.size() >= limits_.max_entries) {
    ++counters_.evictions_capacity;
    const bool of_its_own = own() != nullptr && !own()->lru.empty();
    EvictEntry(entries_.at((of_its_own ? own()->lru : lru_).begin()->second), gone);
  }
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
      const Change change(*this, entry);
      Use(entry);
      return ReserveOutcome{true, entry.handle, entry.bytes, {}};
    }
    ++counters_.lookups_miss;
  }
  ReserveOutcome outcome;
  // Beyond the capacity it fails, before rounding could overflow.
  outcome.bytes = max_bytes > limits_.capacity_bytes ? max_bytes : RoundUp(max_bytes, limits_.page);
  MASKKV_RETURN_IF_ERROR(CheckRoom(caller.tenant, outcome.bytes));
  MakeRoom(caller.tenant, outcome.bytes, outcome.gone);
  const std::uint64_t id = next_entry_++;
  Entry& entry = entries_[id];
  std::uint64_t nonce = 0;
  random_(std::as_writable_bytes(std::span(&nonce, 1)));
  entry.handle = {owner_, epoch_, id, 0, nonce};
  entry.tenant = caller.tenant;
  entry.key = key;
  entry.writer = caller.session;
  entry.bytes = outcome.bytes;
  Use(entry);
  Count(entry, true);
  sessions_.at(caller.session).writes.insert(id);
  ++counters_.allocations_ok;
  outcome.handle = entry.handle;
  return outcome;
}

absl::StatusOr<std::uint64_t> CacheTable::WriteTarget(const SessionToken& session,
                                                      std::uint64_t entry_id, std::uint64_t nonce) {
  if (!IsReserved(session, entry_id) || entries_.at(entry_id).handle.nonce != nonce) {
    ++counters_.shares_denied;
    return UnknownHandle();
  }
  ++counters_.shares_ok;
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
  const Change change(*this, *entry);
  entry->state = EntryState::kSealing;
  return entry->handle.entry_id;
}

absl::StatusOr<Handle> CacheTable::FinishSeal(std::uint64_t entry_id, std::uint64_t bytes,
                                              const EntryFacts& facts) {
  Entry& entry = entries_.at(entry_id);
  MASKKV_CHECK(entry.state == EntryState::kSealing, "sealing ends once");
  MASKKV_CHECK(bytes <= entry.bytes, "sealing gives back, it does not take");
  if (entry.orphaned) return UnknownHandle();  // AbortSeal erases it
  const Change change(*this, entry);
  sessions_.at(entry.writer).writes.erase(entry_id);
  entry.writer = {};
  entry.state = EntryState::kSealed;
  entry.handle.version = 1;
  entry.facts = facts;
  entry.bytes = bytes;
  if (entry.key) {
    const auto [key, fresh] = keys_.try_emplace({entry.tenant, *entry.key}, entry_id);
    if (!fresh) {
      entries_.at(key->second).key.reset();
      key->second = entry_id;
    }
  }
  Use(entry);
  return entry.handle;
}

GoneEntries CacheTable::AbortSeal(std::uint64_t entry_id, bool keep) {
  GoneEntries gone;
  Entry& entry = entries_.at(entry_id);
  MASKKV_CHECK(entry.state == EntryState::kSealing, "sealing ends once");
  if (keep && !entry.orphaned) {
    const Change change(*this, entry);
    entry.state = EntryState::kReserved;
  } else {
    Erase(entry_id, gone);
  }
  return gone;
}

bool CacheTable::IsReserved(const SessionToken& session, std::uint64_t entry_id) const {
  const auto found = entries_.find(entry_id);
  return found != entries_.end() && found->second.writer == session &&
         found->second.state == EntryState::kReserved;
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

}  // namespace maskkv::arena
