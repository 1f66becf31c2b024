// SPDX-License-Identifier: Apache-2.0
#include "services/cache/cache_service.h"

#include <grpcpp/impl/service_type.h>
#include <sys/resource.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "core/arena/descriptor_server.h"
#include "core/base/error.h"
#include "core/base/status_macros.h"
#include "maskkv/v1/budget.pb.h"
#include "services/cache/cache_handlers.h"
#include "services/cache/metrics.h"

namespace maskkv::cache {
namespace {

constexpr std::chrono::seconds kReportPeriod(1);
// Descriptors that are no entries: connections of both servers, files, what is on its way.
constexpr std::size_t kOtherDescriptors = 1024;

// Each entry is a descriptor of this process. Takes as many as the system allows it, and returns
// how many of them entries may be; a process without any left could not be talked to.
std::size_t EntriesThatFit(std::size_t wanted) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return wanted;
  const std::size_t enough = wanted + kOtherDescriptors;
  if (limit.rlim_cur < enough) {
    limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, enough);
    setrlimit(RLIMIT_NOFILE, &limit);
    getrlimit(RLIMIT_NOFILE, &limit);
  }
  if (limit.rlim_cur >= enough) return wanted;
  return limit.rlim_cur > 2 * kOtherDescriptors ? limit.rlim_cur - kOtherDescriptors
                                                : limit.rlim_cur / 2;
}

}  // namespace

struct CacheService::Impl {
  Impl(const CacheServiceOptions& given, telemetry::Registry& registry)
      : options(given),
        metrics(registry),
        manager(given.limits, given.owner, arena::CacheManager::RandomEpoch(),
                arena::MakeMemfdPlane(), clock),
        handlers(MakeCacheHandlers(manager, metrics)) {}

  ~Impl() {
    {
      const std::lock_guard lock(mu);
      stopping = true;
    }
    changed.notify_all();
    if (reporter.joinable()) reporter.join();
  }

  absl::Status Listen() {
    arena::DescriptorServerOptions socket_options;
    socket_options.path = options.socket;
    socket_options.identify = [services = options.service_uids,
                               tenants = options.tenants](std::uint32_t uid) {
      arena::SessionIdentity identity = arena::DefaultIdentity(uid);
      identity.is_service |= std::ranges::find(services, uid) != services.end();
      const auto tenant = tenants.find(uid);
      if (tenant != tenants.end()) identity.tenant = tenant->second;
      return identity;
    };
    MASKKV_ASSIGN_OR_RETURN(socket, arena::DescriptorServer::Start(socket_options, manager));
    return absl::OkStatus();
  }

  // Leases that expire and sessions that end change the numbers without any call.
  void Report() {
    arena::CacheCounters before;
    std::unique_lock lock(mu);
    while (!changed.wait_for(lock, kReportPeriod, [this] { return stopping; })) {
      const arena::CacheStat stat = manager.Stat();
      const arena::CacheCounters counters = manager.counters();
      metrics.Update(stat, counters);
      if (options.controller != nullptr) Send(stat, counters, before);
      before = counters;
    }
  }

  void Send(const arena::CacheStat& stat, const arena::CacheCounters& now,
            const arena::CacheCounters& before) const {
    v1::ReportRequest report;
    report.set_reporter("cached");
    report.mutable_period()->set_seconds(kReportPeriod.count());
    v1::CacheObservation& cache = *report.mutable_cache();
    cache.set_capacity_bytes(stat.capacity_bytes);
    cache.set_allocated_bytes(stat.allocated_bytes);
    cache.set_leased_bytes(stat.leased_bytes);
    cache.set_refused(static_cast<std::int64_t>(now.allocations_full - before.allocations_full +
                                                now.allocations_quota - before.allocations_quota));
    cache.set_evicted(
        static_cast<std::int64_t>(now.evictions_capacity - before.evictions_capacity));
    options.controller->Report(report);
  }

  const CacheServiceOptions options;
  SteadyClock clock;
  Metrics metrics;
  arena::CacheManager manager;
  std::unique_ptr<grpc::Service> handlers;
  std::optional<arena::DescriptorServer> socket;

  std::mutex mu;
  std::condition_variable changed;
  bool stopping = false;  // guarded by mu
  std::thread reporter;
};

absl::StatusOr<CacheService> CacheService::Start(const CacheServiceOptions& options,
                                                 telemetry::Registry& registry) {
  if (options.limits.capacity_bytes < options.limits.page) {
    return MakeError(absl::StatusCode::kInvalidArgument, "INVALID_ARGUMENT",
                     "capacity: expected at least a page, found less");
  }
  CacheServiceOptions fitting = options;
  fitting.limits.max_entries = EntriesThatFit(options.limits.max_entries);
  auto impl = std::make_unique<Impl>(fitting, registry);
  MASKKV_RETURN_IF_ERROR(impl->Listen());
  impl->metrics.Update(impl->manager.Stat(), impl->manager.counters());
  impl->reporter = std::thread([raw = impl.get()] { raw->Report(); });
  return CacheService(std::move(impl));
}

CacheService::CacheService(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
CacheService::CacheService(CacheService&&) noexcept = default;
CacheService& CacheService::operator=(CacheService&&) noexcept = default;
CacheService::~CacheService() = default;

grpc::Service& CacheService::service() { return *impl_->handlers; }
arena::CacheManager& CacheService::manager() { return impl_->manager; }

}  // namespace maskkv::cache
