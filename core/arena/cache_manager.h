// SPDX-License-Identifier: Apache-2.0
//
// The cache manager as its servers use it: the table (cache_table.h) and the memory of its entries
// (plane.h) behind one lock. What takes long, allocating, sealing, validating, giving memory back,
// is done outside the lock. Thread safe.
//
// Sealing: the region is shrunk to what was used and made immutable for every process; only then
// are its bytes read and validated, so that what was checked cannot change any more.
#ifndef MASKKV_CORE_ARENA_CACHE_MANAGER_H_
#define MASKKV_CORE_ARENA_CACHE_MANAGER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/arena/cache_table.h"
#include "core/arena/plane.h"
#include "core/base/clock.h"
#include "core/base/unique_fd.h"

namespace maskkv::arena {

// Bytes from the operating system that nobody can guess.
void SystemRandom(std::span<std::byte> bytes);

class CacheManager {
 public:
  // epoch: one life of the daemon, never 0; RandomEpoch() outside of tests.
  CacheManager(CacheLimits limits, std::string owner, std::uint64_t epoch,
               std::unique_ptr<MemoryPlane> plane, const Clock& clock,
               CacheTable::Random random = SystemRandom);

  static std::uint64_t RandomEpoch();

  // Errors of all below: of CacheTable's calls of the same names, and what is said here.
  absl::StatusOr<SessionToken> OpenSession(const SessionIdentity& identity);
  void CloseSession(const SessionToken& token);
  absl::StatusOr<Caller> Authenticate(const SessionToken& token, const std::string& tenant) const;

  // Errors: also RESOURCE_EXHAUSTED (CACHE_FULL) when the system gives no memory.
  absl::StatusOr<ReserveOutcome> Reserve(const Caller& caller, const std::optional<Digest>& key,
                                         std::uint64_t max_bytes, bool ignore_cached);
  // A descriptor of the session's own reservation, to be mapped writable; the caller closes it.
  struct Descriptor {
    UniqueFd fd;
    std::uint64_t bytes = 0;
  };
  absl::StatusOr<Descriptor> WriteDescriptor(const SessionToken& session, std::uint64_t entry_id,
                                             std::uint64_t nonce);
  struct SealedEntry {
    Handle handle;
    std::uint64_t bytes = 0;
  };
  // Errors: also FAILED_PRECONDITION (STILL_MAPPED: nothing has changed); after these the
  // reservation is gone: DATA_LOSS (BAD_HEADER, also one that names another entry; CHECKSUM),
  // FAILED_PRECONDITION (LAYOUT_MISMATCH; NOT_SEALED: the writer has meddled with the descriptor).
  absl::StatusOr<SealedEntry> Seal(const Caller& caller, const Handle& handle,
                                   std::uint64_t used_bytes);
  absl::Status Drop(const Caller& caller, const Handle& handle);

  absl::StatusOr<LeaseGrant> Lease(const Caller& caller, const Handle& handle, Duration ttl);
  absl::StatusOr<Descriptor> ReadDescriptor(const SessionToken& session, const LeaseId& lease);
  absl::StatusOr<Duration> Renew(const Caller& caller, const LeaseId& lease, Duration ttl);
  absl::Status Release(const Caller& caller, const LeaseId& lease);

  absl::StatusOr<EvictOutcome> Evict(const Caller& caller, const Handle& handle);
  EvictOutcome EvictAll(const Caller& caller);
  // To be called now and then: leases whose time is over end.
  void ExpireLeases();

  CacheStat Stat() const;
  std::vector<ListedEntry> List(const Caller& caller, std::uint64_t after, std::size_t limit) const;
  CacheCounters counters() const;
  std::uint64_t epoch() const { return epoch_; }

  void CheckInvariants() const;

 private:
  // Shared, because sealing works on a region outside the lock while its session may end.
  using Regions = std::map<std::uint64_t, std::shared_ptr<Region>>;

  // Takes the regions of entries that are gone out of the map, for the caller to destroy unlocked.
  std::vector<std::shared_ptr<Region>> TakeLocked(const GoneEntries& gone);
  absl::StatusOr<Descriptor> ShareLocked(std::uint64_t entry_id) const;
  absl::StatusOr<EntryFacts> Validate(const Region& region, std::uint64_t entry_id,
                                      std::uint64_t used_bytes) const;

  // Constant after construction.
  const std::uint64_t epoch_;
  const std::unique_ptr<MemoryPlane> plane_;

  mutable std::mutex mu_;
  CacheTable table_;  // guarded by mu_
  Regions regions_;   // guarded by mu_
};

}  // namespace maskkv::arena

#endif  // MASKKV_CORE_ARENA_CACHE_MANAGER_H_
