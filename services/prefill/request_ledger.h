// SPDX-License-Identifier: Apache-2.0
//
// What makes Prefill idempotent: which requests are under way and what recent ones were answered,
// by tenant and request id. The first caller of an id runs it, others join; if the runner is
// cancelled, one of them takes the run over; a result is remembered for minutes, an error is not. A
// plain class: it decides, the callers wait (joined_runs.h). Not thread safe; the clock is
// injected.
//
// Invariants: an id has at most one run that is not over; a run that failed, or that nobody runs or
// waits for, is forgotten; at most max_remembered results are kept.
#ifndef MASKKV_SERVICES_PREFILL_REQUEST_LEDGER_H_
#define MASKKV_SERVICES_PREFILL_REQUEST_LEDGER_H_

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/arena/handle.h"
#include "core/base/clock.h"

namespace maskkv::v1 {
class PrefillResponse;
}

namespace maskkv::prefill {

using RunId = std::uint64_t;
using Answer = std::shared_ptr<const v1::PrefillResponse>;

class RequestLedger {
 public:
  struct Limits {
    Duration remember = std::chrono::minutes(10);
    std::size_t max_remembered = 4096;
  };

  enum class Step {
    kRun,   // the caller runs it, then calls Finish, Fail or Abandon
    kWait,  // somebody runs it: the caller is joined to it, looks again later, or calls Leave
    kDone,  // `answer`, at once: the caller has nothing more to do with the run
  };
  struct Next {
    Step step = Step::kRun;
    RunId run = 0;
    Answer answer;
  };

  RequestLedger(const Limits& limits, const Clock& clock) : limits_(limits), clock_(clock) {}

  // digest: of the request without its id.
  // Errors: ALREADY_EXISTS (REQUEST_ID_REUSED) if the id is known with another digest.
  absl::StatusOr<Next> Enter(const std::string& tenant, const std::string& request_id,
                             const arena::Digest& digest);
  // For a joined caller: kWait, kRun if the run has become its own, kDone.
  // Errors: what the run failed with; the caller is not joined any more.
  absl::StatusOr<Next> Look(RunId run);
  // A joined caller goes away.
  void Leave(RunId run);

  // By the runner. Fail: every joined caller gets the error. Abandon: the runner was cancelled, the
  // next one that looks takes over.
  void Finish(RunId run, Answer answer);
  void Fail(RunId run, const absl::Status& status);
  void Abandon(RunId run);

  // Forgets an answer that turned out to be useless, if it is still the one that is remembered.
  void Forget(const std::string& tenant, const std::string& request_id, const Answer& answer);

  std::size_t remembered() const { return done_.size(); }
  std::size_t runs() const { return runs_.size(); }

  // Aborts if an invariant does not hold.
  void CheckInvariants() const;

 private:
  using Key = std::pair<std::string, std::string>;
  enum class State { kRunning, kVacant, kDone, kFailed };
  struct Run {
    Key key;
    arena::Digest digest{};
    State state = State::kRunning;
    std::int64_t joined = 0;
    bool named = true;  // the id still means this run
    Answer answer;
    absl::Status status;
    TimePoint finished;
    std::list<RunId>::iterator in_done;  // while it is done and named
  };

  void ForgetOld();
  void Unname(RunId id, Run& run);
  void DropIfUnused(RunId id);
  Run& Get(RunId id);

  const Limits limits_;
  const Clock& clock_;
  std::map<RunId, Run> runs_;
  std::map<Key, RunId> names_;
  std::list<RunId> done_;  // remembered, oldest first
  RunId next_ = 1;
};

}  // namespace maskkv::prefill

#endif  // MASKKV_SERVICES_PREFILL_REQUEST_LEDGER_H_
