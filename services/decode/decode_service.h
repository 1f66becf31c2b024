// SPDX-License-Identifier: Apache-2.0
//
// The decode service as a handle: what a server registers, with everything behind it: step loop,
// clients of prefill and cache manager, reports to the budget controller. Several services can
// share a server and a loaded model.
//
// Ownership: shares the model, owns the rest. Movable. It outlives the server that it is registered
// with; drain the server first. Thread safe.
#ifndef MASKKV_SERVICES_DECODE_DECODE_SERVICE_H_
#define MASKKV_SERVICES_DECODE_DECODE_SERVICE_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/schedule/turns.h"
#include "core/telemetry/metrics.h"
#include "services/common/cache_client.h"
#include "services/common/model_runtime.h"

namespace grpc {
class Service;
}

namespace maskkv::decode {

struct DecodeOptions {
  std::string prefill;                 // address; empty: only CACHE_NONE and reuse are answered
  services::CacheClientOptions cache;  // an empty address: only CACHE_NONE is answered
  std::string budget;                  // address; empty: nobody is reported to

  std::int64_t max_running = 16;                   // sequences in a batch
  std::int64_t queue_capacity = 64;                // requests between arrival and their first step
  std::chrono::milliseconds longest_wait{60'000};  // of a sequence for a place
  std::chrono::milliseconds stall_limit{30'000};   // of a reader
  std::int64_t event_queue = 16;                   // steps of a sequence that wait to be read
  std::int64_t max_gen_length = 4096;
  std::int32_t max_samples = 64;
  // Lines `TOKEN TENANT`; empty: callers need no token, and only those on this machine name a
  // tenant.
  std::string token_file;
  std::shared_ptr<schedule::Turns> turns;  // of steps at the cores; null: none are taken
};

class DecodeService {
 public:
  // Does not wait for the other services.
  // Errors: INVALID_ARGUMENT (an option out of range, BAD_TOKEN_FILE, of CacheClient::Create), of
  // the token file.
  static absl::StatusOr<DecodeService> Create(const DecodeOptions& options,
                                              std::shared_ptr<const services::ModelRuntime> model,
                                              telemetry::Registry& registry);
  DecodeService(DecodeService&&) noexcept;
  DecodeService& operator=(DecodeService&&) noexcept;
  ~DecodeService();

  grpc::Service& service();

  // One real step, so that nothing is done for the first time when a request comes.
  // Errors: of the engine.
  absl::Status WarmUp();

  // New requests are refused: UNAVAILABLE (DRAINING). Returns when every request that was accepted
  // before has taken its first step, or `wait` is over: from then on answers need neither prefill
  // nor cache manager to finish, so that a server which hosts those too may be drained.
  void StopAccepting(std::chrono::milliseconds wait);

 private:
  struct Impl;
  explicit DecodeService(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace maskkv::decode

#endif  // MASKKV_SERVICES_DECODE_DECODE_SERVICE_H_
