// SPDX-License-Identifier: Apache-2.0
//
// The RPCs of maskkv.v1.CacheService: who asks, what the manager says, as messages. Thread safe.
#ifndef MASKKV_SERVICES_CACHE_CACHE_HANDLERS_H_
#define MASKKV_SERVICES_CACHE_CACHE_HANDLERS_H_

#include <memory>

#include "core/arena/cache_manager.h"
#include "services/cache/metrics.h"

namespace grpc {
class Service;
}

namespace maskkv::cache {

// manager and metrics outlive it.
std::unique_ptr<grpc::Service> MakeCacheHandlers(arena::CacheManager& manager, Metrics& metrics);

}  // namespace maskkv::cache

#endif  // MASKKV_SERVICES_CACHE_CACHE_HANDLERS_H_
