// SPDX-License-Identifier: Apache-2.0
//
// Follows the budget controller's plan in the background and sends reports to it. The controller
// may be away: the last plan stays in force, before the first one there is none (the caller then
// uses its profile), and reports are dropped. Tries again after 0.1 s, later up to 3 s, with
// jitter. Only valid plans are taken; a restarted controller's plan is, whatever its generation.
// Thread safe; destroying it cancels its calls and ends its threads.
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
  // address: of the controller's gRPC server; "" follows nobody. watcher: its name in the
  // controller's logs, 1 to 128 printable ASCII characters.
  static std::unique_ptr<PlanWatcher> Start(const std::string& address, const std::string& watcher);
  virtual ~PlanWatcher() = default;

  // Null before the first plan arrived.
  virtual std::shared_ptr<const budget::Plan> Current() const = 0;

  // Sends without waiting; dropped when the controller does not answer within a second. Up to 16
  // wait for their turn, then the oldest is dropped.
  virtual void Report(const v1::ReportRequest& report) = 0;
};

}  // namespace maskkv::services

#endif  // MASKKV_SERVICES_COMMON_PLAN_WATCHER_H_
