// SPDX-License-Identifier: Apache-2.0
//
// What the prefill service does, without gRPC: checks a request, resolves its plan, waits for its
// turn, compresses, answers; counts, logs and remembers. Logs hold no prompt text and no token.
// Thread safe: any number of calls at once, one forward at a time.
#ifndef MASKKV_SERVICES_PREFILL_PREFILL_HANDLER_H_
#define MASKKV_SERVICES_PREFILL_PREFILL_HANDLER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/clock.h"
#include "core/budget/plan.h"
#include "services/common/cache_client.h"
#include "services/common/call.h"
#include "services/common/model_runtime.h"
#include "services/common/plan_watcher.h"
#include "services/prefill/compressor.h"
#include "services/prefill/forward_gate.h"
#include "services/prefill/joined_runs.h"
#include "services/prefill/metrics.h"
#include "services/prefill/observations.h"

namespace maskkv::v1 {
class ExplainRequest;
class ExplainResponse;
class KeepPolicy;
class ModelInfoResponse;
class PrefillRequest;
class PrefillResponse;
class Prompt;
class RopeScaling;
class TokenizeRequest;
class TokenizeResponse;
class VocabularyResponse;
}  // namespace maskkv::v1

namespace maskkv::prefill {

struct HandlerOptions {
  std::shared_ptr<const services::ModelRuntime> model;
  std::shared_ptr<services::CacheClient> cache;
  std::shared_ptr<services::PlanWatcher> plans;    // null: no controller
  kernels::DType kv_dtype = kernels::DType::kF32;  // of pairs, where a request says nothing
  schedule::AdmissionLimits queue;                 // places is 1
  RequestLedger::Limits remember;
  std::uint64_t max_message_bytes = 64 << 20;
  std::shared_ptr<schedule::Turns> turns;  // at the cores; null: none are taken
  const Clock* clock = nullptr;            // outlives the handler
};

class PrefillHandler {
 public:
  PrefillHandler(const HandlerOptions& options, const Metrics& metrics);

  // As prefill.proto says. request_id of `call` is for logs, that of the request for idempotence.
  absl::Status Prefill(const services::Call& call, const v1::PrefillRequest& request,
                       v1::PrefillResponse& response);
  absl::Status Explain(const services::Call& call, const v1::ExplainRequest& request,
                       v1::ExplainResponse& response);
  void ModelInfo(v1::ModelInfoResponse& response) const;
  absl::Status Tokenize(const v1::TokenizeRequest& request, v1::TokenizeResponse& response) const;
  absl::Status Vocabulary(v1::VocabularyResponse& response) const;

  // A forward in its turn. alive: OK while it is wanted.
  absl::Status WarmUp(const std::function<absl::Status()>& alive);
  // Sends what was observed since the last time to the controller.
  void Report(const std::string& reporter);

 private:
  struct Done {  // of one Prefill
    Answer answer;
    Outcome outcome = Outcome::kForward;
  };

  // What a prefill and an explanation ask alike. plan: where absent fields of keep come from, or
  // null.
  absl::StatusOr<Job> MakeJob(const v1::Prompt* prompt, std::int64_t masks,
                              std::span<const std::int32_t> response, const v1::KeepPolicy* keep,
                              const v1::RopeScaling* rope_scaling, const budget::Plan* plan) const;
  std::shared_ptr<const budget::Plan> PlanInForce() const {
    return plans_ != nullptr ? plans_->Current() : nullptr;
  }
  absl::StatusOr<Done> Serve(const services::Call& call, const v1::PrefillRequest& request);
  // What the request says of a document's copy: leases and maps it, checks that it is one.
  absl::Status MapDocument(const services::Call& call, const v1::PrefillRequest& request,
                           Job& job) const;
  absl::StatusOr<Done> ServeOnce(const services::Call& call, const v1::PrefillRequest& request,
                                 const Job& job, const budget::Plan* plan);
  // plan: what the job's keep came from, for the answer.
  absl::StatusOr<Answer> Compress(const services::Call& call, const Job& job, std::int32_t priority,
                                  const budget::Plan* plan);
  absl::StatusOr<ForwardGate::Turn> WaitForTurn(const Job& job, std::int32_t priority,
                                                std::uint64_t more_bytes,
                                                const std::function<absl::Status()>& alive);
  void Observe(const Compressed& compressed, const Job& job);
  bool StillThere(const services::Call& call, const v1::PrefillResponse& answer);
  // Counts and logs the end of a request.
  void Finished(std::string_view event, const services::Call& call, const absl::Status& status,
                Outcome outcome, TimePoint start, const v1::PrefillResponse* answer) const;

  const std::shared_ptr<const services::ModelRuntime> model_;
  const std::shared_ptr<services::CacheClient> cache_;
  const kernels::DType kv_dtype_;
  const std::shared_ptr<services::PlanWatcher> plans_;
  const std::uint64_t max_message_bytes_;
  const Clock& clock_;
  const Metrics metrics_;

  ForwardGate gate_;
  Compressor compressor_;  // used by whoever has the turn
  JoinedRuns runs_;
  Observations observations_;
};

}  // namespace maskkv::prefill

#endif  // MASKKV_SERVICES_PREFILL_PREFILL_HANDLER_H_
