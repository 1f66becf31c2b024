// SPDX-License-Identifier: Apache-2.0
#include "core/arena/cache_manager.h"

#include <sys/random.h>

#include <utility>

#include "core/arena/entry_index.h"
#include "core/base/check.h"
#include "core/base/error.h"
#include "core/base/status_macros.h"

namespace maskkv::arena {

void SystemRandom(std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t got = getrandom(bytes.data(), bytes.size(), 0);
    MASKKV_CHECK(got > 0 || errno == EINTR, "the system has random bytes");
    if (got > 0) bytes = bytes.subspan(static_cast<std::size_t>(got));
  }
}

std::uint64_t CacheManager::RandomEpoch() {
  std::uint64_t epoch = 0;
  while (epoch == 0) SystemRandom(std::as_writable_bytes(std::span(&epoch, 1)));
  return epoch;
}

CacheManager::CacheManager(CacheLimits limits, std::string owner, std::uint64_t epoch,
                           std::unique_ptr<MemoryPlane> plane, const Clock& clock,
                           CacheTable::Random random)
    : epoch_(epoch),
      plane_(std::move(plane)),
      table_(
          [&] {
            limits.page = plane_->granularity();
            return std::move(limits);
          }(),
          std::move(owner), epoch, clock, std::move(random)) {}

std::vector<std::shared_ptr<Region>> CacheManager::TakeLocked(const GoneEntries& gone) {
  std::vector<std::shared_ptr<Region>> regions;
  for (const std::uint64_t id : gone) {
    const auto region = regions_.find(id);
    if (region == regions_.end()) continue;  // reserved, not yet allocated
    regions.push_back(std::move(region->second));
    regions_.erase(region);
  }
  return regions;
}

absl::StatusOr<SessionToken> CacheManager::OpenSession(const SessionIdentity& identity) {
  const std::lock_guard lock(mu_);
  return table_.OpenSession(identity);
}

void CacheManager::CloseSession(const SessionToken& token) {
  std::vector<std::shared_ptr<Region>> gone;
  const std::lock_guard lock(mu_);
  gone = TakeLocked(table_.CloseSession(token));
}

absl::StatusOr<Caller> CacheManager::Authenticate(const SessionToken& token,
                                                  const std::string& tenant) const {
  const std::lock_guard lock(mu_);
  return table_.Authenticate(token, tenant);
}

absl::StatusOr<ReserveOutcome> CacheManager::Reserve(const Caller& caller,
                                                     const std::optional<Digest>& key,
                                                     std::uint64_t max_bytes, bool ignore_cached) {
  ReserveOutcome outcome;
  {
    // Destroyed before memory is asked for.
    std::vector<std::shared_ptr<Region>> evicted;
    const std::lock_guard lock(mu_);
    MASKKV_ASSIGN_OR_RETURN(outcome, table_.Reserve(caller, key, max_bytes, ignore_cached));
    evicted = TakeLocked(outcome.gone);
  }
  if (outcome.cached) return outcome;
  absl::StatusOr<std::unique_ptr<Region>> region = plane_->Allocate(outcome.bytes);
  const std::lock_guard lock(mu_);  // after the region, which may have to be destroyed
  if (!region.ok()) {
    // Unless its session has ended meanwhile.
    TakeLocked(table_.Drop(caller, outcome.handle).value_or(GoneEntries()));
    return WithRetryAfter(MakeError(absl::StatusCode::kResourceExhausted, "CACHE_FULL",
                                    "cache: expected memory of the system, found none"),
                          std::chrono::seconds(1));
  }
  // Its session may have ended, and its tenant may have seen it in a list and dropped it.
  if (!table_.IsReserved(caller.session, outcome.handle.entry_id)) {
    return MakeError(absl::StatusCode::kAborted, "ABORTED",
                     "reservation: expected to be wanted, found it dropped meanwhile");
  }
  regions_.emplace(outcome.handle.entry_id, std::move(*region));
  return outcome;
}

absl::StatusOr<CacheManager::Descriptor> CacheManager::ShareLocked(std::uint64_t entry_id) const {
  const auto region = regions_.find(entry_id);
  if (region == regions_.end()) {
    return MakeError(absl::StatusCode::kNotFound, "HANDLE_UNKNOWN",
                     "handle: expected one of an entry that is there, found another");
  }
  MASKKV_ASSIGN_OR_RETURN(UniqueFd fd, region->second->Share());
  return Descriptor{std::move(fd), region->second->bytes()};
}

absl::StatusOr<CacheManager::Descriptor> CacheManager::WriteDescriptor(const SessionToken& session,
                                                                       std::uint64_t entry_id,
                                                                       std::uint64_t nonce) {
  const std::lock_guard lock(mu_);
  MASKKV_ASSIGN_OR_RETURN(const std::uint64_t id, table_.WriteTarget(session, entry_id, nonce));
  return ShareLocked(id);
}

absl::StatusOr<EntryFacts> CacheManager::Validate(const Region& region, std::uint64_t entry_id,
                                                  std::uint64_t used_bytes) const {
  MASKKV_ASSIGN_OR_RETURN(const Mapping mapping, region.Map(Access::kRead));
  EntryExpectation expectation;
  expectation.epoch = epoch_;
  expectation.entry_id = entry_id;
  expectation.bytes = used_bytes;
  const absl::StatusOr<EntryIndex> index = ValidateEntry(mapping.memory(), expectation);
  if (index.status().code() == absl::StatusCode::kAborted) {
    // To a reader it is an entry of another life; of a writer it is a wrong header.
    return MakeError(absl::StatusCode::kDataLoss, "BAD_HEADER",
                     std::string(index.status().message()));
  }
  MASKKV_RETURN_IF_ERROR(index.status());
  return EntryFacts{index->metadata.prompt_tokens + index->metadata.suffix_tokens, index->pairs};
}

absl::StatusOr<CacheManager::SealedEntry> CacheManager::Seal(const Caller& caller,
                                                             const Handle& handle,
                                                             std::uint64_t used_bytes) {
  std::uint64_t id = 0;
  std::shared_ptr<Region> region;
  {
    const std::lock_guard lock(mu_);
    MASKKV_ASSIGN_OR_RETURN(id, table_.BeginSeal(caller, handle, used_bytes));
    const auto found = regions_.find(id);
    if (found == regions_.end()) {  // seen in a list before its memory was there
      table_.AbortSeal(id, /*keep=*/true);
      return MakeError(absl::StatusCode::kFailedPrecondition, "NOT_RESERVED",
                       "handle: expected a reserved entry, found one without memory");
    }
    region = found->second;
  }
  const absl::Status sealed = region->Seal(used_bytes);
  absl::StatusOr<EntryFacts> facts =
      sealed.ok() ? Validate(*region, id, used_bytes) : absl::StatusOr<EntryFacts>(sealed);
  std::vector<std::shared_ptr<Region>> gone;
  const std::lock_guard lock(mu_);
  if (!facts.ok()) {
    gone = TakeLocked(table_.AbortSeal(id, ErrorReason(facts.status()) == "STILL_MAPPED"));
    return facts.status();
  }
  absl::StatusOr<Handle> finished = table_.FinishSeal(id, region->bytes(), *facts);
  if (!finished.ok()) {
    gone = TakeLocked(table_.AbortSeal(id, /*keep=*/false));
    return finished.status();
  }
  return SealedEntry{*std::move(finished), region->bytes()};
}

absl::Status CacheManager::Drop(const Caller& caller, const Handle& handle) {
  std::vector<std::shared_ptr<Region>> taken;
  const std::lock_guard lock(mu_);
  MASKKV_ASSIGN_OR_RETURN(const GoneEntries gone, table_.Drop(caller, handle));
  taken = TakeLocked(gone);
  return absl::OkStatus();
}

absl::StatusOr<LeaseGrant> CacheManager::Lease(const Caller& caller, const Handle& handle,
                                               Duration ttl) {
  const std::lock_guard lock(mu_);
  return table_.Lease(caller, handle, ttl);
}

absl::StatusOr<CacheManager::Descriptor> CacheManager::ReadDescriptor(const SessionToken& session,
                                                                      const LeaseId& lease) {
  const std::lock_guard lock(mu_);
  MASKKV_ASSIGN_OR_RETURN(const std::uint64_t id, table_.ReadTarget(session, lease));
  return ShareLocked(id);
}

absl::StatusOr<Duration> CacheManager::Renew(const Caller& caller, const LeaseId& lease,
                                             Duration ttl) {
  const std::lock_guard lock(mu_);
  return table_.Renew(caller, lease, ttl);
}

absl::Status CacheManager::Release(const Caller& caller, const LeaseId& lease) {
  std::vector<std::shared_ptr<Region>> taken;
  const std::lock_guard lock(mu_);
  MASKKV_ASSIGN_OR_RETURN(const GoneEntries gone, table_.Release(caller, lease));
  taken = TakeLocked(gone);
  return absl::OkStatus();
}

absl::StatusOr<EvictOutcome> CacheManager::Evict(const Caller& caller, const Handle& handle) {
  std::vector<std::shared_ptr<Region>> taken;
  const std::lock_guard lock(mu_);
  MASKKV_ASSIGN_OR_RETURN(EvictOutcome outcome, table_.Evict(caller, handle));
  taken = TakeLocked(outcome.gone);
  return outcome;
}

EvictOutcome CacheManager::EvictAll(const Caller& caller) {
  std::vector<std::shared_ptr<Region>> taken;
  const std::lock_guard lock(mu_);
  EvictOutcome outcome = table_.EvictAll(caller);
  taken = TakeLocked(outcome.gone);
  return outcome;
}

void CacheManager::ExpireLeases() {
  const std::lock_guard lock(mu_);
  table_.ExpireLeases();
}

CacheStat CacheManager::Stat() const {
  const std::lock_guard lock(mu_);
  return table_.Stat();
}

std::vector<ListedEntry> CacheManager::List(const Caller& caller, std::uint64_t after,
                                            std::size_t limit) const {
  const std::lock_guard lock(mu_);
  return table_.List(caller, after, limit);
}

CacheCounters CacheManager::counters() const {
  const std::lock_guard lock(mu_);
  return table_.counters();
}

void CacheManager::CheckInvariants() const {
  const std::lock_guard lock(mu_);
  table_.CheckInvariants();
  const CacheStat stat = table_.Stat();
  MASKKV_CHECK(static_cast<std::int64_t>(regions_.size()) <=
                   stat.reserved_entries + stat.sealed_entries + stat.pending_entries,
               "memory belongs to an entry");
}

}  // namespace maskkv::arena
