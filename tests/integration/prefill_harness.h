// SPDX-License-Identifier: Apache-2.0
//
// A prefill service and a cache manager on real servers in this process, real gRPC and real
// descriptors between them, and a gate in front of Reserve, so that a test decides how long a
// request holds the place of the forward.
#ifndef MASKKV_TESTS_INTEGRATION_PREFILL_HARNESS_H_
#define MASKKV_TESTS_INTEGRATION_PREFILL_HARNESS_H_

#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "core/engine/eviction_plan.h"
#include "core/engine/heap_kv.h"
#include "core/engine/prefill.h"
#include "core/telemetry/metrics.h"
#include "maskkv/v1/cache.grpc.pb.h"
#include "maskkv/v1/prefill.grpc.pb.h"
#include "services/cache/cache_service.h"
#include "services/common/server.h"
#include "services/prefill/prefill_service.h"
#include "tests/support/temp_folder.h"

namespace maskkv::testing {

// Whether reservations go through, and who stands in front.
class ReserveGate {
 public:
  void Hold();
  void Open();
  int held() const;
  // False if the caller went away while it was held.
  bool Pass(const std::function<bool()>& cancelled);

 private:
  mutable std::mutex mu_;
  std::condition_variable changed_;
  bool open_ = true;  // guarded by mu_, as what follows
  int held_ = 0;
};

// The cache manager under an address that stays the same over restarts.
class CacheDaemon {
 public:
  CacheDaemon(const std::string& address, const std::string& socket, std::uint64_t capacity,
              std::uint64_t quota, ReserveGate& gate);
  ~CacheDaemon();

  arena::CacheManager& manager() { return service_->manager(); }

 private:
  class Front;
  telemetry::Registry registry_;
  std::optional<cache::CacheService> service_;
  std::optional<services::Server> inner_;  // the service itself
  std::unique_ptr<Front> front_;           // passes calls on, Reserve through the gate
  std::optional<services::Server> outer_;
};

struct PrefillHarnessOptions {
  std::string model = "tests/data/golden/checkpoints/mha";
  std::uint64_t cache_capacity = 64 << 20;
  std::uint64_t tenant_quota = 0;
  bool cache_at_start = true;
  std::uint32_t answer_within_ms = 120'000;     // of the cache manager, held by the gate or not
  prefill::PrefillServiceOptions service = {};  // model, cache, registry are filled in
};

class PrefillHarness {
 public:
  explicit PrefillHarness(PrefillHarnessOptions options = {});
  ~PrefillHarness();

  void StartCache();
  void StopCache() { cache.reset(); }

  absl::StatusOr<v1::PrefillResponse> Prefill(const v1::PrefillRequest& request,
                                              const std::string& tenant = "");
  // In a context of the caller's: with a deadline, or to be cancelled while it runs.
  absl::StatusOr<v1::PrefillResponse> Prefill(grpc::ClientContext& context,
                                              const v1::PrefillRequest& request);

  // The entry of a handle, mapped as a reader of that tenant.
  std::shared_ptr<const arena::MappedEntry> Map(const v1::Handle& handle,
                                                const std::string& tenant = "default");

  // Value of one series as a scrape shows it: name and labels as in the text format.
  double Metric(const std::string& series) const;
  double Finished(const std::string& reason) const;
  double WaitingFor(const std::string& reason) const;

  const PrefillHarnessOptions options;
  const TempFolder folder;
  ReserveGate gate;
  std::optional<CacheDaemon> cache;
  std::shared_ptr<const services::ModelRuntime> model;
  telemetry::Registry registry;
  std::optional<prefill::PrefillService> service;
  std::optional<services::Server> server;
  std::unique_ptr<v1::PrefillService::Stub> stub;
};

// A prompt of token ids that a seed decides.
std::vector<std::int32_t> TokensOf(const model::ModelConfig& config, std::int64_t count,
                                   std::uint64_t seed);
v1::PrefillRequest RequestOf(const std::vector<std::int32_t>& ids, std::int64_t masks = 8,
                             std::int64_t budget = 6);
// What a request's keep with a budget and uniform layers asks for.
engine::EvictionPlan UniformPlan(std::int64_t budget);

// What the engine alone keeps.
struct EngineEntry {
  engine::HeapKvEntry entry;
  engine::PrefillResult result;
};
std::unique_ptr<EngineEntry> EngineAlone(const services::ModelRuntime& model,
                                         const std::vector<std::int32_t>& ids, std::int64_t masks,
                                         const engine::EvictionPlan& plan, double rope_scale = 1);
std::unique_ptr<EngineEntry> EngineAlone(const services::ModelRuntime& model,
                                         std::span<const engine::Row> rows,
                                         const engine::EvictionPlan& plan, double rope_scale = 1,
                                         std::optional<kernels::DType> kv_dtype = std::nullopt);
// Positions, keys and values, bit for bit.
void ExpectSameEntry(const engine::KvView& expected, const engine::KvView& found);

// Looks again and again, for as long as that can take.
void Until(const std::function<bool()>& condition);

}  // namespace maskkv::testing

#endif  // MASKKV_TESTS_INTEGRATION_PREFILL_HARNESS_H_
