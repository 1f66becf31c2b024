// SPDX-License-Identifier: Apache-2.0
#include "services/cache/metrics.h"

namespace maskkv::cache {
namespace {

using arena::CacheCounters;
using telemetry::MetricSpec;
using telemetry::MetricType;

constexpr MetricSpec kCapacity{"maskkv_cache_capacity_bytes", MetricType::kGauge, "bytes",
                               "Memory that entries may take.", "pool"};
constexpr MetricSpec kAllocated{
    "maskkv_cache_allocated_bytes", MetricType::kGauge, "bytes",
    "Memory charged now: reserved, sealed, and evicted but still mapped.", "pool"};
constexpr MetricSpec kLeased{"maskkv_cache_leased_bytes", MetricType::kGauge, "bytes",
                             "Memory of entries that somebody leases.", "pool"};
constexpr MetricSpec kFree{"maskkv_cache_largest_free_bytes", MetricType::kGauge, "bytes",
                           "Largest entry that fits without evicting anything.", "pool"};
constexpr MetricSpec kUsage{"maskkv_cache_usage_ratio", MetricType::kGauge, "ratio",
                            "Allocated share of the capacity, 0 to 1.", "pool"};
constexpr MetricSpec kEntries{"maskkv_cache_entries", MetricType::kGauge, "1", "Entries by state.",
                              "state"};
constexpr MetricSpec kLeases{"maskkv_cache_leases", MetricType::kGauge, "1",
                             "Leases that have not expired."};
constexpr MetricSpec kSessions{"maskkv_cache_sessions", MetricType::kGauge, "1",
                               "Peers that are connected."};
constexpr MetricSpec kAllocations{"maskkv_cache_allocations_total", MetricType::kCounter, "1",
                                  "Reservations asked for, by result.", "result"};
constexpr MetricSpec kEvictions{"maskkv_cache_evictions_total", MetricType::kCounter, "1",
                                "Entries evicted, by reason.", "reason"};
constexpr MetricSpec kLookups{"maskkv_cache_lookups_total", MetricType::kCounter, "1",
                              "Keys and handles looked up, by result.", "result"};
constexpr MetricSpec kShares{"maskkv_cache_share_total", MetricType::kCounter, "1",
                             "Descriptors of entries asked for, by the way they go and result.",
                             "transport,result"};
constexpr MetricSpec kExpired{"maskkv_cache_leases_expired_total", MetricType::kCounter, "1",
                              "Leases that ended because nobody renewed them."};
constexpr MetricSpec kIntegrity{"maskkv_cache_integrity_failures_total", MetricType::kCounter, "1",
                                "Entries refused at Seal, by what was wrong.", "kind"};
constexpr MetricSpec kAll[] = {kCapacity, kAllocated, kLeased,   kFree,        kUsage,
                               kEntries,  kLeases,    kSessions, kAllocations, kEvictions,
                               kLookups,  kShares,    kExpired,  kIntegrity};

const telemetry::Labels kHost{{"pool", "host"}};

}  // namespace

std::span<const MetricSpec> MetricSpecs() { return kAll; }

Metrics::Metrics(telemetry::Registry& r)
    : capacity_(r.AddGauge(kCapacity, kHost)),
      allocated_(r.AddGauge(kAllocated, kHost)),
      leased_(r.AddGauge(kLeased, kHost)),
      free_(r.AddGauge(kFree, kHost)),
      usage_(r.AddGauge(kUsage, kHost)),
      leases_(r.AddGauge(kLeases)),
      sessions_(r.AddGauge(kSessions)),
      reserved_(r.AddGauge(kEntries, {{"state", "reserved"}})),
      sealed_(r.AddGauge(kEntries, {{"state", "sealed"}})),
      pending_(r.AddGauge(kEntries, {{"state", "pending"}})),
      sources_{{
          {r.AddCounter(kAllocations, {{"result", "ok"}}), &CacheCounters::allocations_ok},
          {r.AddCounter(kAllocations, {{"result", "full"}}), &CacheCounters::allocations_full},
          {r.AddCounter(kAllocations, {{"result", "quota"}}), &CacheCounters::allocations_quota},
          {r.AddCounter(kAllocations, {{"result", "too_large"}}),
           &CacheCounters::allocations_too_large},
          {r.AddCounter(kEvictions, {{"reason", "capacity"}}), &CacheCounters::evictions_capacity},
          {r.AddCounter(kEvictions, {{"reason", "quota"}}), &CacheCounters::evictions_quota},
          {r.AddCounter(kEvictions, {{"reason", "request"}}), &CacheCounters::evictions_request},
          {r.AddCounter(kLookups, {{"result", "hit"}}), &CacheCounters::lookups_hit},
          {r.AddCounter(kLookups, {{"result", "miss"}}), &CacheCounters::lookups_miss},
          {r.AddCounter(kLookups, {{"result", "stale"}}), &CacheCounters::lookups_stale},
          {r.AddCounter(kLookups, {{"result", "denied"}}), &CacheCounters::lookups_denied},
          {r.AddCounter(kShares, {{"transport", "unix"}, {"result", "ok"}}),
           &CacheCounters::shares_ok},
          {r.AddCounter(kShares, {{"transport", "unix"}, {"result", "denied"}}),
           &CacheCounters::shares_denied},
          {r.AddCounter(kExpired), &CacheCounters::leases_expired},
      }},
      checksum_failures_(r.AddCounter(kIntegrity, {{"kind", "checksum"}})),
      header_failures_(r.AddCounter(kIntegrity, {{"kind", "header"}})) {}

void Metrics::Update(const arena::CacheStat& stat, const CacheCounters& counters) {
  const std::lock_guard lock(mu_);
  const auto capacity = static_cast<double>(stat.capacity_bytes);
  const auto allocated = static_cast<double>(stat.allocated_bytes);
  capacity_.Set(capacity);
  allocated_.Set(allocated);
  leased_.Set(static_cast<double>(stat.leased_bytes));
  free_.Set(capacity - allocated);
  usage_.Set(capacity > 0 ? allocated / capacity : 0);
  leases_.Set(static_cast<double>(stat.leases));
  sessions_.Set(static_cast<double>(stat.sessions));
  reserved_.Set(static_cast<double>(stat.reserved_entries));
  sealed_.Set(static_cast<double>(stat.sealed_entries));
  pending_.Set(static_cast<double>(stat.pending_entries));
  for (const Source& source : sources_) {
    // Two readers may arrive out of order.
    if (counters.*source.value <= last_.*source.value) continue;
    source.counter.Add(static_cast<double>(counters.*source.value - last_.*source.value));
    last_.*source.value = counters.*source.value;
  }
}

void Metrics::CountIntegrityFailure(std::string_view kind) const {
  (kind == "CHECKSUM" ? checksum_failures_ : header_failures_).Add();
}

}  // namespace maskkv::cache
