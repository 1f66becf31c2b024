// SPDX-License-Identifier: Apache-2.0
//
// maskkv.v1.BudgetService over a PlanKeeper, with the thread that lets its loops step. Registers on
// any server, alone or beside other services. Movable handle; its server is gone before it is
// destroyed. Thread safe.
#ifndef MASKKV_SERVICES_BUDGET_BUDGET_SERVICE_H_
#define MASKKV_SERVICES_BUDGET_BUDGET_SERVICE_H_

#include <chrono>
#include <memory>

#include "absl/status/statusor.h"
#include "core/telemetry/metrics.h"
#include "services/budget/plan_keeper.h"

namespace grpc {
class Service;
}

namespace maskkv::budget_service {

struct BudgetServiceOptions {
  KeeperOptions keeper;
  std::chrono::milliseconds tick{1000};  // 0: no thread, the caller ticks
};

class BudgetService {
 public:
  // Errors: of PlanKeeper::Open.
  static absl::StatusOr<BudgetService> Start(const BudgetServiceOptions& options,
                                             telemetry::Registry& registry);
  BudgetService(BudgetService&&) noexcept;
  BudgetService& operator=(BudgetService&&) noexcept;
  ~BudgetService();

  grpc::Service& service();
  PlanKeeper& keeper();

  // Ends watches (UNAVAILABLE, DRAINING) and the loops; other calls go on. Before Server::Drain.
  void BeginDrain();

 private:
  struct Impl;
  explicit BudgetService(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace maskkv::budget_service

#endif  // MASKKV_SERVICES_BUDGET_BUDGET_SERVICE_H_
