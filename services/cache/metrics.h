// SPDX-License-Identifier: Apache-2.0
//
// The cache manager's metrics, declared here and nowhere else. They are brought up to date from the
// manager's own counts, so that they cannot drift from them.
#ifndef MASKKV_SERVICES_CACHE_METRICS_H_
#define MASKKV_SERVICES_CACHE_METRICS_H_

#include <array>
#include <cstdint>
#include <mutex>
#include <span>
#include <string_view>

#include "core/arena/cache_records.h"
#include "core/telemetry/metrics.h"

namespace maskkv::cache {

std::span<const telemetry::MetricSpec> MetricSpecs();

// Thread safe.
class Metrics {
 public:
  explicit Metrics(telemetry::Registry& registry);

  // Gauges as they are, counters by what they grew since the last update.
  void Update(const arena::CacheStat& stat, const arena::CacheCounters& counters);

  // An entry that failed its checks at Seal: "CHECKSUM", or anything else.
  void CountIntegrityFailure(std::string_view kind) const;

 private:
  // One counter's series and how to read it of CacheCounters.
  struct Source {
    telemetry::Counter counter;
    std::uint64_t arena::CacheCounters::*value;
  };

  std::mutex mu_;
  arena::CacheCounters last_;  // guarded by mu_
  telemetry::Gauge capacity_, allocated_, leased_, free_, usage_, leases_, sessions_;
  telemetry::Gauge reserved_, sealed_, pending_;
  std::array<Source, 14> sources_;
  telemetry::Counter checksum_failures_, header_failures_;
};

}  // namespace maskkv::cache

#endif  // MASKKV_SERVICES_CACHE_METRICS_H_
