// SPDX-License-Identifier: Apache-2.0
#include "services/prefill/request_ledger.h"

#include "core/base/check.h"
#include "core/base/error.h"

namespace maskkv::prefill {

absl::StatusOr<RequestLedger::Next> RequestLedger::Enter(const std::string& tenant,
                                                         const std::string& request_id,
                                                         const arena::Digest& digest) {
  ForgetOld();
  const Key key{tenant, request_id};
  const auto [name, is_new] = names_.try_emplace(key, next_);
  if (is_new) {
    Run& run = runs_[next_];
    run.key = key;
    run.digest = digest;
    return Next{Step::kRun, next_++, nullptr};
  }
  Run& run = Get(name->second);
  if (run.digest != digest) {
    return MakeError(absl::StatusCode::kAlreadyExists, "REQUEST_ID_REUSED",
                     "request_id: expected the request that it was first used with, found another");
  }
  if (run.state == State::kDone) return Next{Step::kDone, 0, run.answer};
  if (run.state == State::kVacant) {
    run.state = State::kRunning;
    return Next{Step::kRun, name->second, nullptr};
  }
  ++run.joined;
  return Next{Step::kWait, name->second, nullptr};
}

absl::StatusOr<RequestLedger::Next> RequestLedger::Look(RunId id) {
  Run& run = Get(id);
  if (run.state == State::kRunning) return Next{Step::kWait, id, nullptr};
  --run.joined;
  if (run.state == State::kVacant) {
    run.state = State::kRunning;
    return Next{Step::kRun, id, nullptr};
  }
  const Answer answer = run.answer;
  const absl::Status status = run.status;
  DropIfUnused(id);
  if (!status.ok()) return status;
  return Next{Step::kDone, 0, answer};
}

void RequestLedger::Leave(RunId id) {
  --Get(id).joined;
  DropIfUnused(id);
}

void RequestLedger::Finish(RunId id, Answer answer) {
  Run& run = Get(id);
  MASKKV_CHECK(run.state == State::kRunning, "only a run under way finishes");
  run.state = State::kDone;
  run.answer = std::move(answer);
  run.finished = clock_.Now();
  run.in_done = done_.insert(done_.end(), id);
  ForgetOld();
}

void RequestLedger::Fail(RunId id, const absl::Status& status) {
  Run& run = Get(id);
  MASKKV_CHECK(run.state == State::kRunning && !status.ok(), "only a run under way fails");
  run.state = State::kFailed;
  run.status = status;
  Unname(id, run);
  DropIfUnused(id);
}

void RequestLedger::Abandon(RunId id) {
  Run& run = Get(id);
  MASKKV_CHECK(run.state == State::kRunning, "only a run under way is abandoned");
  run.state = State::kVacant;
  DropIfUnused(id);
}

void RequestLedger::Forget(const std::string& tenant, const std::string& request_id,
                           const Answer& answer) {
  const auto name = names_.find(Key{tenant, request_id});
  if (name == names_.end()) return;
  const RunId id = name->second;
  Run& run = Get(id);
  if (run.state != State::kDone || run.answer != answer) return;
  Unname(id, run);
  DropIfUnused(id);
}

void RequestLedger::ForgetOld() {
  while (!done_.empty()) {
    const RunId id = done_.front();
    Run& run = Get(id);
    if (done_.size() <= limits_.max_remembered && clock_.Now() - run.finished < limits_.remember) {
      return;
    }
    Unname(id, run);
    DropIfUnused(id);
  }
}

// The id may be used again; those that joined still get the outcome.
void RequestLedger::Unname(RunId id, Run& run) {
  MASKKV_CHECK(run.named && names_.at(run.key) == id, "a named run is found by its name");
  names_.erase(run.key);
  run.named = false;
  if (run.state == State::kDone) done_.erase(run.in_done);
}

void RequestLedger::DropIfUnused(RunId id) {
  Run& run = Get(id);
  if (run.joined > 0 || run.state == State::kRunning) return;
  if (run.state == State::kVacant) Unname(id, run);
  if (!run.named) runs_.erase(id);
}

RequestLedger::Run& RequestLedger::Get(RunId id) {
  const auto found = runs_.find(id);
  MASKKV_CHECK(found != runs_.end(), "the run is known");
  return found->second;
}

void RequestLedger::CheckInvariants() const {
  std::size_t named = 0, done = 0;
  for (const auto& [id, run] : runs_) {
    MASKKV_CHECK(run.joined >= 0, "joined callers are counted");
    if (run.named) {
      ++named;
      MASKKV_CHECK(names_.at(run.key) == id, "a named run is found by its name");
      MASKKV_CHECK(run.state != State::kFailed, "a failed run has no name");
      if (run.state == State::kDone) ++done;
    } else {
      MASKKV_CHECK(run.state == State::kFailed || run.state == State::kDone, "its run is over");
      MASKKV_CHECK(run.joined > 0, "somebody still wants its outcome");
    }
    MASKKV_CHECK(run.state != State::kVacant || run.joined > 0, "a vacant run has takers");
    MASKKV_CHECK((run.state == State::kDone) == (run.answer != nullptr), "done means an answer");
  }
  MASKKV_CHECK(named == names_.size(), "every name has its run");
  MASKKV_CHECK(done == done_.size() && done <= limits_.max_remembered, "answers are bounded");
}

}  // namespace maskkv::prefill
