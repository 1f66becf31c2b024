// SPDX-License-Identifier: Apache-2.0
//
// Follows the budget controller's plan in the background and sends reports to it. The controller may
// be away: the last plan stays in force, before the first one there is none (the caller then uses its
// profile), and reports are dropped. Thread safe; destroying it ends its thread.
#ifndef MASKKV_SERVICES_COMMON_PLAN_WATCHER_H_
#define MASKKV_SERVICES_COMMON_PLAN_WATCHER_H_

#include <memory>
#include <string>

#include "core/budget/plan.h"

namespace maskkv::v1 {
class ReportRequest;
}

namespace maskkv::services {

class PlanWatcher {
 public:
  // address: of the controller's gRPC server; "" follows nobody. watcher: its name in logs.
  static std::unique_ptr<PlanWatcher> Start(const std::string& address, const std::string& watcher);
  virtual ~PlanWatcher() = default;

  // Null before the first plan arrived.
  virtual std::shared_ptr<const budget::Plan> Current() const = 0;

  // Sends without waiting; dropped when the controller does not answer within a second.
  virtual void Report(const v1::ReportRequest& report) = 0;
};

}  // namespace maskkv::services

#endif  // MASKKV_SERVICES_COMMON_PLAN_WATCHER_H_
