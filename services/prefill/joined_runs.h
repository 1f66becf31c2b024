// SPDX-License-Identifier: Apache-2.0
//
// Callers that share a request id share one run: the blocking face of RequestLedger. Thread safe.
#ifndef MASKKV_SERVICES_PREFILL_JOINED_RUNS_H_
#define MASKKV_SERVICES_PREFILL_JOINED_RUNS_H_

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/clock.h"
#include "services/prefill/request_ledger.h"

namespace maskkv::prefill {

class JoinedRuns {
 public:
  // A thread that waits looks at its call at least so often.
  static constexpr std::chrono::milliseconds kLook{20};

  struct Caller {
    std::string tenant;
    std::string request_id;
    arena::Digest digest{};
    // OK while this caller wants the answer; called often, must be cheap.
    std::function<absl::Status()> alive;
    // Makes the answer. CANCELLED and DEADLINE_EXCEEDED mean that this caller has gone, if alive
    // says so too: another one takes over.
    std::function<absl::StatusOr<Answer>()> run;
    // Whether an answer of earlier is still worth giving; if not, it is made anew.
    std::function<bool(const Answer&)> still_good;
    // Called when this caller begins to wait for another one's run, and when that has ended.
    std::function<void(bool)> on_waiting;
  };
  struct Outcome {
    Answer answer;
    bool own = false;  // this caller's run made it
  };

  JoinedRuns(const RequestLedger::Limits& limits, const Clock& clock) : ledger_(limits, clock) {}

  // Errors: ALREADY_EXISTS (REQUEST_ID_REUSED); of alive and run.
  absl::StatusOr<Outcome> Do(const Caller& caller);

 private:
  absl::StatusOr<RequestLedger::Next> Await(RunId run, const Caller& caller);
  absl::StatusOr<Outcome> RunNow(RunId run, const Caller& caller);

  std::mutex mu_;
  std::condition_variable changed_;
  RequestLedger ledger_;  // guarded by mu_
};

}  // namespace maskkv::prefill

#endif  // MASKKV_SERVICES_PREFILL_JOINED_RUNS_H_
