// SPDX-License-Identifier: Apache-2.0
#include "services/prefill/joined_runs.h"

#include <utility>

#include "core/base/status_macros.h"

namespace maskkv::prefill {

using Step = RequestLedger::Step;

absl::StatusOr<JoinedRuns::Outcome> JoinedRuns::Do(const Caller& caller) {
  for (;;) {
    RequestLedger::Next next;
    {
      const std::lock_guard lock(mu_);
      MASKKV_ASSIGN_OR_RETURN(next, ledger_.Enter(caller.tenant, caller.request_id, caller.digest));
    }
    const bool remembered = next.step == Step::kDone;
    if (next.step == Step::kWait) {
      MASKKV_ASSIGN_OR_RETURN(next, Await(next.run, caller));
    }
    if (next.step == Step::kRun) return RunNow(next.run, caller);
    if (!remembered || caller.still_good(next.answer)) return Outcome{next.answer, false};
    const std::lock_guard lock(mu_);
    ledger_.Forget(caller.tenant, caller.request_id, next.answer);
  }
}

absl::StatusOr<RequestLedger::Next> JoinedRuns::Await(RunId run, const Caller& caller) {
  caller.on_waiting(true);
  absl::StatusOr<RequestLedger::Next> next;
  {
    std::unique_lock lock(mu_);
    for (;;) {
      next = ledger_.Look(run);
      if (!next.ok() || next->step != Step::kWait) break;
      if (absl::Status status = caller.alive(); !status.ok()) {
        ledger_.Leave(run);
        next = std::move(status);
        break;
      }
      changed_.wait_for(lock, kLook);
    }
  }
  caller.on_waiting(false);
  return next;
}

absl::StatusOr<JoinedRuns::Outcome> JoinedRuns::RunNow(RunId run, const Caller& caller) {
  absl::StatusOr<Answer> answer;
  try {
    answer = caller.run();
  } catch (...) {  // out of memory: nobody may wait for a run that has ended
    const std::lock_guard lock(mu_);
    ledger_.Abandon(run);
    changed_.notify_all();
    throw;
  }
  const std::lock_guard lock(mu_);
  if (answer.ok()) {
    ledger_.Finish(run, *answer);
  } else if (!caller.alive().ok()) {
    ledger_.Abandon(run);
  } else {
    ledger_.Fail(run, answer.status());
  }
  changed_.notify_all();
  MASKKV_RETURN_IF_ERROR(answer.status());
  return Outcome{*std::move(answer), true};
}

}  // namespace maskkv::prefill
