// SPDX-License-Identifier: Apache-2.0
//
// The controller as a process has it: shared by threads, persisted, audited, measured. Every new
// plan is on the device before anybody sees it, so that a generation never comes twice with another
// plan. Where persisting fails the plan in force stays: an operator's change is answered with the
// error, a loop's is tried again with the next tick. Knows no gRPC. Thread safe.
#ifndef MASKKV_SERVICES_BUDGET_PLAN_KEEPER_H_
#define MASKKV_SERVICES_BUDGET_PLAN_KEEPER_H_

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/clock.h"
#include "core/budget/controller.h"
#include "core/telemetry/metrics.h"
#include "services/budget/audit_log.h"
#include "services/budget/metrics.h"

namespace maskkv::budget_service {

struct KeeperOptions {
  budget::PlannedModel model;
  budget::Policy policy;   // where no state was saved; a saved one wins
  std::string state_file;  // "": generations start at 1 with every process
  std::string audit_file;  // "": log events only
};

class PlanKeeper {
 public:
  using PlanPointer = std::shared_ptr<const budget::Plan>;

  struct InForce {
    PlanPointer plan;
    budget::Policy policy;
  };

  // The clock outlives the keeper. Errors: of LoadState and SaveState (state_file.h),
  // AuditLog::Open, Controller::Create and Restore.
  static absl::StatusOr<std::unique_ptr<PlanKeeper>> Open(const KeeperOptions& options,
                                                          const Clock& clock,
                                                          telemetry::Registry& registry);

  InForce Current() const;

  // Returns: the plan in force afterwards.
  // Errors: FAILED_PRECONDITION (GENERATION_MOVED) if `expected` is set and is not the generation
  // in force; of Controller::SetPolicy; of SaveState.
  absl::StatusOr<PlanPointer> SetPolicy(const budget::Policy& policy,
                                        std::optional<std::uint64_t> expected,
                                        const Author& author);

  // Returns: the generation in force. Errors: of Controller::Observe.
  absl::StatusOr<std::uint64_t> Observe(const budget::Observation& observation);

  // Lets the loops step: about once a second.
  void Tick();

  // Waits until a plan of another generation than `seen` is in force, Stop was called, or `timeout`
  // has passed. Returns: that plan, or null.
  PlanPointer WaitForOther(std::uint64_t seen, std::chrono::milliseconds timeout) const;

  // Ends all waits, now and later.
  void Stop();
  bool stopped() const;

 private:
  PlanKeeper(const KeeperOptions& options, AuditLog audit, budget::Controller controller,
             telemetry::Registry& registry);

  absl::Status Persist(const budget::Controller& controller) const;
  void Publish();

  const std::string state_file_;
  AuditLog audit_;

  // Held while a change is persisted: reports wait for that, readers do not.
  std::mutex mu_;
  budget::Controller controller_;  // guarded by mu_
  Metrics metrics_;                // guarded by mu_
  bool failing_ = false;           // guarded by mu_: the last persisting failed

  mutable std::mutex in_force_mu_;
  mutable std::condition_variable changed_;
  InForce in_force_;      // guarded by in_force_mu_
  bool stopped_ = false;  // guarded by in_force_mu_
};

}  // namespace maskkv::budget_service

#endif  // MASKKV_SERVICES_BUDGET_PLAN_KEEPER_H_
