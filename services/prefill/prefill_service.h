// SPDX-License-Identifier: Apache-2.0
//
// PrefillService as a gRPC server registers it (protos/maskkv/v1/prefill.proto), and the thread
// behind it that makes it ready and reports to the budget controller. Movable handle over the
// implementation; it outlives the server that it is registered with.
#ifndef MASKKV_SERVICES_PREFILL_PREFILL_SERVICE_H_
#define MASKKV_SERVICES_PREFILL_PREFILL_SERVICE_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "core/schedule/turns.h"
#include "core/telemetry/metrics.h"
#include "services/common/cache_client.h"
#include "services/common/model_runtime.h"
#include "services/common/plan_watcher.h"

namespace grpc {
class Service;
}

namespace maskkv::prefill {

struct PrefillServiceOptions {
  // Shared with decode where both live in one process.
  std::shared_ptr<const services::ModelRuntime> model;
  std::shared_ptr<services::CacheClient> cache;
  std::shared_ptr<services::PlanWatcher> plans;  // null: no controller
  // Of the pairs of entries, where a request says nothing; none: as the model rounds them.
  std::optional<kernels::DType> kv_dtype;
  telemetry::Registry* registry = nullptr;  // null: no metrics; it outlives the service

  // Requests that wait for their forward, and working memory of all that wait or run.
  std::int64_t queue_capacity = 64;
  std::uint64_t queue_bytes = 0;  // 0: half of the memory that is available at the start
  std::chrono::milliseconds longest_wait{60'000};

  // How long, and how many, answers are remembered for their request ids.
  std::chrono::seconds remember{600};
  std::int64_t max_remembered = 4096;

  std::shared_ptr<schedule::Turns> turns;      // of forwards at the cores; null: none are taken
  std::uint64_t max_message_bytes = 64 << 20;  // the server's
  std::string reporter = "prefill";            // name towards the controller
  std::chrono::milliseconds report_period{1'000};
};

class PrefillService {
 public:
  // Errors: INVALID_ARGUMENT for an option out of range.
  static absl::StatusOr<PrefillService> Start(const PrefillServiceOptions& options);
  PrefillService(PrefillService&&) noexcept;
  PrefillService& operator=(PrefillService&&) noexcept;
  ~PrefillService();

  grpc::Service& service();

  // Starts the background thread: a real forward, then the cache manager's first answer, however
  // long that takes; then on_ready runs once, on that thread. Reports go out from the start.
  void Begin(std::function<void()> on_ready);
  // Ends the background thread: on_ready does not run afterwards. Idempotent.
  void Stop();

 private:
  struct Impl;
  explicit PrefillService(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace maskkv::prefill

#endif  // MASKKV_SERVICES_PREFILL_PREFILL_SERVICE_H_
