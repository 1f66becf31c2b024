// SPDX-License-Identifier: Apache-2.0
#include "services/budget/plan_keeper.h"

#include <string_view>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/error.h"
#include "core/base/status_macros.h"
#include "core/telemetry/log.h"
#include "services/budget/state_file.h"

namespace maskkv::budget_service {
namespace {

using telemetry::LogLevel;

absl::StatusOr<budget::Controller> Begin(const KeeperOptions& options,
                                         const std::optional<SavedState>& saved,
                                         const Clock& clock) {
  if (!saved) return budget::Controller::Create(options.model, options.policy, clock);
  if (!(saved->policy == options.policy)) {
    telemetry::Log(LogLevel::kInfo, "saved_policy_in_force",
                   {{"file", std::string_view(options.state_file)},
                    {"generation", static_cast<std::int64_t>(saved->plan.generation)}});
  }
  return budget::Controller::Restore(options.model, saved->policy, saved->plan, clock);
}

}  // namespace

absl::StatusOr<std::unique_ptr<PlanKeeper>> PlanKeeper::Open(const KeeperOptions& options,
                                                             const Clock& clock,
                                                             telemetry::Registry& registry) {
  std::optional<SavedState> saved;
  if (!options.state_file.empty()) {
    MASKKV_ASSIGN_OR_RETURN(saved, LoadState(options.state_file));
  }
  MASKKV_ASSIGN_OR_RETURN(budget::Controller controller, Begin(options, saved, clock));
  MASKKV_ASSIGN_OR_RETURN(AuditLog audit, AuditLog::Open(options.audit_file));
  std::unique_ptr<PlanKeeper> keeper(
      new PlanKeeper(options, std::move(audit), std::move(controller), registry));
  if (!saved ||
      !(*saved == SavedState{keeper->controller_.policy(), keeper->controller_.Current()})) {
    MASKKV_RETURN_IF_ERROR(keeper->Persist(keeper->controller_));
  }
  return keeper;
}

PlanKeeper::PlanKeeper(const KeeperOptions& options, AuditLog audit, budget::Controller controller,
                       telemetry::Registry& registry)
    : state_file_(options.state_file),
      audit_(std::move(audit)),
      controller_(std::move(controller)),
      metrics_(registry) {
  Publish();
}

absl::Status PlanKeeper::Persist(const budget::Controller& controller) const {
  if (state_file_.empty()) return absl::OkStatus();
  return SaveState({controller.policy(), controller.Current()}, state_file_);
}

void PlanKeeper::Publish() {
  metrics_.Publish(controller_);
  {
    const std::lock_guard lock(in_force_mu_);
    in_force_ = {std::make_shared<const budget::Plan>(controller_.Current()), controller_.policy()};
  }
  changed_.notify_all();
}

PlanKeeper::InForce PlanKeeper::Current() const {
  const std::lock_guard lock(in_force_mu_);
  return in_force_;
}

absl::StatusOr<PlanKeeper::PlanPointer> PlanKeeper::SetPolicy(const budget::Policy& policy,
                                                              std::optional<std::uint64_t> expected,
                                                              const Author& author) {
  const std::lock_guard lock(mu_);
  const std::uint64_t before = controller_.Current().generation;
  const auto done = [&](Update update, std::string_view result) {
    metrics_.Count(update);
    audit_.Append({author, result, before, controller_.Current().generation, policy});
  };
  if (expected && *expected != before) {
    done(Update::kRefused, "refused");
    return MakeError(
        absl::StatusCode::kFailedPrecondition, "GENERATION_MOVED",
        absl::StrFormat("expected_generation: expected %d, found %d", before, *expected),
        {{"generation", absl::StrFormat("%d", before)}});
  }
  budget::Controller next = controller_;
  const absl::StatusOr<bool> changed = next.SetPolicy(policy);
  if (!changed.ok()) {
    done(Update::kRefused, "refused");
    return changed.status();
  }
  if (!*changed) {
    done(Update::kUnchanged, "unchanged");
    return Current().plan;
  }
  if (absl::Status status = Persist(next); !status.ok()) {
    done(Update::kFailed, "failed");
    telemetry::Log(LogLevel::kError, "plan_not_persisted",
                   {{"error", std::string(status.message())}});
    return MakeError(absl::StatusCode::kUnavailable, "STATE_NOT_WRITTEN",
                     "the state file could not be written; the old policy is in force");
  }
  controller_ = std::move(next);
  Publish();
  done(Update::kApplied, "applied");
  return Current().plan;
}

absl::StatusOr<std::uint64_t> PlanKeeper::Observe(const budget::Observation& observation) {
  const std::lock_guard lock(mu_);
  const absl::Status status = controller_.Observe(observation);
  metrics_.CountReport(status.ok());
  MASKKV_RETURN_IF_ERROR(status);
  return controller_.Current().generation;
}

void PlanKeeper::Tick() {
  const std::lock_guard lock(mu_);
  metrics_.ShowInput(controller_);
  budget::Controller next = controller_;
  const bool changed = next.Tick();
  if (!changed) {
    controller_ = std::move(next);  // it has forgotten silent reporters
    return;
  }
  if (absl::Status status = Persist(next); !status.ok()) {
    metrics_.Count(Update::kFailed);
    if (!failing_) {
      telemetry::Log(LogLevel::kError, "plan_not_persisted",
                     {{"error", std::string(status.message())}});
    }
    failing_ = true;
    return;
  }
  failing_ = false;
  controller_ = std::move(next);
  Publish();
  metrics_.Count(Update::kApplied);
  const budget::Plan& plan = controller_.Current();
  telemetry::Log(LogLevel::kInfo, "plan_changed",
                 {{"generation", static_cast<std::int64_t>(plan.generation)},
                  {"cause", std::string_view(plan.cause)},
                  {"budget", plan.coverage > 0 ? plan.max_budget : plan.budget}});
}

PlanKeeper::PlanPointer PlanKeeper::WaitForOther(std::uint64_t seen,
                                                 std::chrono::milliseconds timeout) const {
  std::unique_lock lock(in_force_mu_);
  const auto other = [&] { return stopped_ || in_force_.plan->generation != seen; };
  if (!changed_.wait_for(lock, timeout, other) || stopped_) return nullptr;
  return in_force_.plan;
}

void PlanKeeper::Stop() {
  {
    const std::lock_guard lock(in_force_mu_);
    stopped_ = true;
  }
  changed_.notify_all();
}

bool PlanKeeper::stopped() const {
  const std::lock_guard lock(in_force_mu_);
  return stopped_;
}

}  // namespace maskkv::budget_service
