// SPDX-License-Identifier: Apache-2.0
//
// The cache manager as a process serves it: maskkv.v1.CacheService over a CacheManager, and the
// descriptor socket beside it. Registers on any gRPC server, alone or beside other services.
// Movable handle; its server is gone before it is destroyed. Thread safe.
#ifndef MASKKV_SERVICES_CACHE_CACHE_SERVICE_H_
#define MASKKV_SERVICES_CACHE_CACHE_SERVICE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/arena/cache_manager.h"
#include "core/telemetry/metrics.h"
#include "services/common/plan_watcher.h"

namespace grpc {
class Service;
}

namespace maskkv::cache {

struct CacheServiceOptions {
  arena::CacheLimits limits;
  std::string owner = "local";              // what handles name as their owner
  std::string socket;                       // path of the descriptor socket
  std::vector<std::uint32_t> service_uids;  // may name a tenant with each call; our own always may
  std::map<std::uint32_t, std::string> tenants;       // of uids that are not "uid-N"
  std::shared_ptr<services::PlanWatcher> controller;  // gets a report a second; null: none
};

class CacheService {
 public:
  // Errors: INVALID_ARGUMENT (no capacity, BAD_ADDRESS), UNAVAILABLE (ADDRESS_IN_USE).
  static absl::StatusOr<CacheService> Start(const CacheServiceOptions& options,
                                            telemetry::Registry& registry);
  CacheService(CacheService&&) noexcept;
  CacheService& operator=(CacheService&&) noexcept;
  ~CacheService();

  grpc::Service& service();
  arena::CacheManager& manager();

 private:
  struct Impl;
  explicit CacheService(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace maskkv::cache

#endif  // MASKKV_SERVICES_CACHE_CACHE_SERVICE_H_
