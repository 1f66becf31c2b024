// SPDX-License-Identifier: Apache-2.0
//
// One Generate call from its first byte to its last: who asks, what is asked, a place, the prompt's
// entry, the sequences, their events to the client. Runs on the call's thread; knows no server.
//
// Everything that a call takes (a place at the gate, a lease, sequences) is released on every way
// out. Thread safe.
#ifndef MASKKV_SERVICES_DECODE_GENERATE_H_
#define MASKKV_SERVICES_DECODE_GENERATE_H_

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "core/base/clock.h"
#include "services/common/model_runtime.h"
#include "services/decode/entry_source.h"
#include "services/decode/kept_entries.h"
#include "services/decode/metrics.h"
#include "services/decode/request_check.h"
#include "services/decode/request_gate.h"
#include "services/decode/step_loop.h"
#include "services/decode/token_table.h"

namespace grpc {
class ServerContext;
}

namespace maskkv::v1 {
class GenerateEvent;
class GenerateRequest;
}  // namespace maskkv::v1

namespace maskkv::decode {

struct GenerateParts {
  const services::ModelRuntime* model = nullptr;
  StepLoop* loop = nullptr;
  const EntrySource* entries = nullptr;
  RequestGate* gate = nullptr;
  SharedKeptEntries* kept = nullptr;
  const TokenTable* tokens = nullptr;  // null: no token is asked for
  const Metrics* metrics = nullptr;
  const Clock* clock = nullptr;
  RequestLimits limits;
};

class GenerateHandler {
 public:
  // Sends one event; false when the client is gone. Blocks while the client does not read.
  using Writer = std::function<bool(const v1::GenerateEvent&)>;

  // All parts are borrowed, none may be null but tokens.
  explicit GenerateHandler(GenerateParts parts) : parts_(std::move(parts)) {}

  // Returns: the call's status. Errors: of decode.proto.
  absl::Status Run(grpc::ServerContext& context, const v1::GenerateRequest& request,
                   const Writer& write) const;

 private:
  struct Answer;  // one call under way

  absl::StatusOr<services::Call> Authenticate(const grpc::ServerContext& context,
                                              const v1::GenerateRequest& request) const;
  // With the canvas's ids.
  absl::StatusOr<CheckedRequest> Check(const v1::GenerateRequest& request) const;
  absl::Status Serve(Answer& answer) const;
  // Tokens of the prompt, its entry, what figures they give.
  absl::Status PreparePrompt(Answer& answer) const;
  // Without a cache: its scaling, and whether every step's rows can fit into memory.
  absl::Status PrepareWholePrompt(Answer& answer) const;
  absl::Status Submit(Answer& answer) const;
  // What brings the sequences other entries, if the request refreshes.
  void PrepareRefresh(Answer& answer) const;
  absl::Status SendStarted(Answer& answer) const;
  absl::Status SendEvents(Answer& answer) const;
  absl::Status SendEvent(Answer& answer, const SequenceEvent& event) const;
  absl::Status SendEnd(Answer& answer, const SequenceEvent& event) const;
  absl::Status Send(Answer& answer, v1::GenerateEvent& event) const;
  void Report(const Answer& answer, const absl::Status& status) const;

  const GenerateParts parts_;
};

}  // namespace maskkv::decode

#endif  // MASKKV_SERVICES_DECODE_GENERATE_H_
