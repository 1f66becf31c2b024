// SPDX-License-Identifier: Apache-2.0
//
// Where a request's compressed prompt comes from: a prefill and the entry that it sealed, or an
// entry that the request names. Leases and maps it. Thread safe; calls block, bounded by the
// request's deadline and cancellation.
#ifndef MASKKV_SERVICES_DECODE_ENTRY_SOURCE_H_
#define MASKKV_SERVICES_DECODE_ENTRY_SOURCE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <stop_token>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "core/arena/mapped_entry.h"
#include "core/engine/kv.h"
#include "core/model/config.h"
#include "services/common/call.h"
#include "services/common/model_runtime.h"
#include "services/decode/request_check.h"

namespace grpc {
class Channel;
class ServerContext;
}  // namespace grpc

namespace maskkv::v1 {
class GenerateRequest;
class Plan;
class PrefillRequest;
class PrefillResponse;
}  // namespace maskkv::v1

namespace maskkv::decode {

// What a refresh tells the prefill service besides the request.
struct RefreshSpec {
  std::span<const std::int32_t> response;  // as it stands: the mask id where nothing is decided
  const v1::Plan* plan = nullptr;          // of the request's first prefill
  std::stop_token stop;                    // ends the call
};

// The prompt as the decoder takes it.
struct PromptEntry {
  std::shared_ptr<const arena::MappedEntry> entry;
  std::shared_ptr<const engine::KvView> view;  // of the entry: what serves this prompt
  // What it does not serve: the last tokens of the prompt before the answer, all or none after it.
  std::vector<std::int32_t> recomputed, recomputed_suffix;
  std::shared_ptr<const engine::KvView> unconditional;  // of a guided request: the masked prompt's
  std::int64_t pairs = 0;                               // of both views
  std::shared_ptr<const v1::PrefillResponse> prefill;   // null if none ran
  double prefill_ms = 0;
  double map_ms = 0;
};

// Leases and maps a sealed entry of this model: CacheClient::Map.
using EntryMapper = std::function<absl::StatusOr<std::shared_ptr<const arena::MappedEntry>>(
    const services::Call&, const arena::Handle&)>;

class EntrySource {
 public:
  // prefill, map: null if there is none to ask.
  EntrySource(std::shared_ptr<grpc::Channel> prefill, EntryMapper map)
      : prefill_(std::move(prefill)), map_(std::move(map)) {}

  // A prefill of the request's prompt of these ids, once more if its entry is gone before it was
  // leased. Of a guided request another one of as many masks, by the same policy and plan.
  // Errors: of the prefill service and of the mapper; UNAVAILABLE (PREFILL_DOWN, CACHE_DOWN).
  absl::StatusOr<PromptEntry> Prefill(const services::Call& call,
                                      const grpc::ServerContext& context,
                                      const v1::GenerateRequest& request,
                                      const CheckedRequest& checked, const services::PromptIds& ids,
                                      const model::ModelConfig& config) const;

  // Another entry of the same prompt for a response under way; what it does not serve is left out.
  // Errors: as Prefill's.
  absl::StatusOr<PromptEntry> Refresh(const services::Call& call,
                                      const grpc::ServerContext& context,
                                      const v1::GenerateRequest& request,
                                      const CheckedRequest& checked,
                                      const RefreshSpec& refresh) const;

  // The entry of checked.reused, for a prompt of these ids, of which an entry may serve the first
  // `servable` and the suffix.
  // Errors: of the mapper; FAILED_PRECONDITION (HANDLE_PROMPT_MISMATCH).
  absl::StatusOr<PromptEntry> Reuse(const services::Call& call, const CheckedRequest& checked,
                                    const services::PromptIds& ids, std::int64_t servable) const;

 private:
  // Adds the masked prompt's entry to that of a prompt of so many tokens.
  absl::Status AddUnconditional(const services::Call& call, const grpc::ServerContext& context,
                                v1::PrefillRequest prefill, std::int64_t tokens,
                                std::int32_t mask_id, PromptEntry& prompt) const;
  // prefill: without its request_id.
  absl::StatusOr<PromptEntry> Obtain(const services::Call& call, const grpc::ServerContext& context,
                                     v1::PrefillRequest prefill, const std::stop_token& stop) const;
  absl::StatusOr<std::shared_ptr<const v1::PrefillResponse>> CallPrefill(
      const services::Call& call, const grpc::ServerContext& context,
      const v1::PrefillRequest& prefill, const std::stop_token& stop) const;
  absl::Status Map(const services::Call& call, const arena::Handle& handle,
                   PromptEntry& prompt) const;

  const std::shared_ptr<grpc::Channel> prefill_;
  const EntryMapper map_;
};

}  // namespace maskkv::decode

#endif  // MASKKV_SERVICES_DECODE_ENTRY_SOURCE_H_
