// SPDX-License-Identifier: Apache-2.0
//
// Who owns which cache entry: sessions, entries, leases, quotas, least recently used. The cache
// manager's truth, kept in the daemon's own heap where no peer can reach it. It owns no memory: it
// says which entries' memory is to be given back (`gone`), cache_manager.h does it. A plain class:
// clock and randomness are injected. Not thread safe.
//
// Life of an entry: RESERVED (its session may write it) -> SEALING (its bytes are being checked) ->
// SEALED (found by key and handle, leased by sessions of its tenant) -> PENDING (evicted, but a
// session still maps it) -> gone. A session that ends takes its reservations, leases and mappings
// along.
//
// Bytes are charged to the entry's tenant from Reserve until the entry is gone: an evicted entry
// that somebody still maps is memory all the same. Entries are counted and bounded in the same way.
//
// Invariants: charged bytes are the sum over entries, in all and by tenant, and never exceed
// capacity and quota; an entry is evictable if and only if it is SEALED, has no lease and no
// session maps it; every lease is of a living session; every key leads to a SEALED entry of its
// tenant.
//
// Errors of every call that takes a Caller or a handle: NOT_FOUND (HANDLE_UNKNOWN, LEASE_UNKNOWN)
// for what does not exist, is another tenant's or session's, or has a wrong nonce: the same words
// for all; ABORTED (EPOCH_MOVED) for a handle of another epoch, or of another version of an entry
// that is there.
#ifndef MASKKV_CORE_ARENA_CACHE_TABLE_H_
#define MASKKV_CORE_ARENA_CACHE_TABLE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/arena/cache_records.h"
#include "core/arena/cache_table_records.h"
#include "core/arena/handle.h"
#include "core/base/clock.h"

namespace maskkv::arena {

class CacheTable {
 public:
  // random: fills a span with bytes that nobody can guess.
  using Random = std::function<void(std::span<std::byte>)>;

  CacheTable(CacheLimits limits, std::string owner, std::uint64_t epoch, const Clock& clock,
             Random random);

  // Errors: RESOURCE_EXHAUSTED (TOO_MANY_SESSIONS).
  absl::StatusOr<SessionToken> OpenSession(const SessionIdentity& identity);
  // Its leases, reservations and mappings are over. Unknown tokens are ignored.
  GoneEntries CloseSession(const SessionToken& token);
  // Who a call with this token and, of a service, for `tenant` ("" for its own) comes from.
  // Errors: UNAUTHENTICATED (NO_SESSION).
  absl::StatusOr<Caller> Authenticate(const SessionToken& token, const std::string& tenant) const;

  // Room for an entry of at most max_bytes, by evicting the tenant's own entries first, then
  // others', least recently used first; or the sealed entry of the key. Errors: RESOURCE_EXHAUSTED
  // (ENTRY_TOO_LARGE; QUOTA_EXCEEDED and CACHE_FULL with a retry hint, and then nothing was
  // evicted); INVALID_ARGUMENT for 0 bytes.
  absl::StatusOr<ReserveOutcome> Reserve(const Caller& caller, const std::optional<Digest>& key,
                                         std::uint64_t max_bytes, bool ignore_cached);
  // The session is about to get a writable descriptor of its reservation: it maps it from now on.
  // Returns: the entry.
  absl::StatusOr<std::uint64_t> WriteTarget(const SessionToken& session, std::uint64_t entry_id,
                                            std::uint64_t nonce);
  // RESERVED -> SEALING. Returns: the entry. Errors: FAILED_PRECONDITION (NOT_RESERVED);
  // INVALID_ARGUMENT for used_bytes that are 0 or more than reserved.
  absl::StatusOr<std::uint64_t> BeginSeal(const Caller& caller, const Handle& handle,
                                          std::uint64_t used_bytes);
  // SEALING -> SEALED, charged `bytes` from now on; the key leads here.
  // Errors: NOT_FOUND if its session ended meanwhile: it is gone.
  absl::StatusOr<Handle> FinishSeal(std::uint64_t entry_id, std::uint64_t bytes,
                                    const EntryFacts& facts);
  // SEALING -> RESERVED again if `keep` and its session still lives, else gone.
  GoneEntries AbortSeal(std::uint64_t entry_id, bool keep);
  // Whether the session may still write the entry.
  bool IsReserved(const SessionToken& session, std::uint64_t entry_id) const;
  // Drops a reservation. Errors: FAILED_PRECONDITION (NOT_RESERVED).
  absl::StatusOr<GoneEntries> Drop(const Caller& caller, const Handle& handle);

  // ttl: zero for the default. Errors: INVALID_ARGUMENT (outside the bounds), RESOURCE_EXHAUSTED
  // (TOO_MANY_LEASES).
  absl::StatusOr<LeaseGrant> Lease(const Caller& caller, const Handle& handle, Duration ttl);
  // The session is about to get a descriptor to read: it maps the entry until it releases the
  // lease. Returns: the entry.
  absl::StatusOr<std::uint64_t> ReadTarget(const SessionToken& session, const LeaseId& lease);
  absl::StatusOr<Duration> Renew(const Caller& caller, const LeaseId& lease, Duration ttl);
  // The caller has unmapped the entry. Also ends a lease that expired while it was mapped.
  absl::StatusOr<GoneEntries> Release(const Caller& caller, const LeaseId& lease);

  absl::StatusOr<EvictOutcome> Evict(const Caller& caller, const Handle& handle);
  EvictOutcome EvictAll(const Caller& caller);
  // Ends leases whose time is over. Their entries can be evicted once nobody maps them.
  std::int64_t ExpireLeases();

  const CacheStat& Stat() const { return stat_; }
  // The tenant's entries with an id above `after`, ascending, at most `limit`.
  std::vector<ListedEntry> List(const Caller& caller, std::uint64_t after, std::size_t limit) const;
  const CacheCounters& counters() const { return counters_; }
  const CacheLimits& limits() const { return limits_; }
  std::uint64_t epoch() const { return epoch_; }

  void CheckInvariants() const;

 private:
  using Entry = table::Entry;
  using Tenant = table::Tenant;
  using Leases = std::map<LeaseId, table::LeaseRecord>;

  // While one lives, an entry may change: sums, counts and turns are right again after it.
  class Change {
   public:
    Change(CacheTable& table, Entry& entry) : table_(table), entry_(entry) {
      table_.Count(entry_, false);
    }
    Change(const Change&) = delete;
    Change& operator=(const Change&) = delete;
    ~Change() { table_.Count(entry_, true); }

   private:
    CacheTable& table_;
    Entry& entry_;
  };

  absl::StatusOr<Entry*> Find(const Caller& caller, const Handle& handle);
  absl::StatusOr<Leases::iterator> FindLease(const SessionToken& session, const LeaseId& lease,
                                             bool expired_too);
  // What a tenant may take.
  struct Quota {
    std::uint64_t bytes = 0;
    std::size_t entries = 0;
  };
  Quota QuotaOf(const std::string& tenant) const;
  absl::Status CheckRoom(const std::string& tenant, std::uint64_t bytes);
  void MakeRoom(const std::string& tenant, std::uint64_t bytes, GoneEntries& gone);
  absl::StatusOr<Duration> CheckedTtl(Duration ttl) const;
  void Count(const Entry& entry, bool in);  // into all sums and turns, or out of them
  void Use(Entry& entry);                   // it is the one used last; within a Change
  void Unfind(Entry& entry);                // its key leads here no more
  // SEALED -> PENDING or gone.
  void EvictEntry(Entry& entry, GoneEntries& gone);
  void Erase(std::uint64_t entry_id, GoneEntries& gone);
  // Over for its session, but written down while it is mapped; within a Change of its entry.
  void Expire(Leases::iterator lease, Entry& entry);
  void EndLease(Leases::iterator lease, GoneEntries& gone);
  void EraseLease(Leases::iterator lease, Entry& entry);
  template <typename Id>
  Id RandomId();
  void CheckLeases() const;
  void CheckEntry(const Entry& entry) const;

  // Constant after construction.
  const CacheLimits limits_;
  const std::string owner_;
  const std::uint64_t epoch_;
  const Clock& clock_;
  const Random random_;

  std::map<SessionToken, table::Session> sessions_;
  std::map<std::uint64_t, Entry> entries_;
  Leases leases_;
  std::map<std::pair<std::string, Digest>, std::uint64_t> keys_;
  std::map<std::string, Tenant> tenants_;
  std::map<std::uint64_t, std::uint64_t> lru_;  // over all tenants
  std::uint64_t evictable_bytes_ = 0;
  CacheStat stat_;
  std::uint64_t next_entry_ = 1;
  std::uint64_t next_use_ = 1;
  CacheCounters counters_;
};

}  // namespace maskkv::arena

#endif  // MASKKV_CORE_ARENA_CACHE_TABLE_H_
