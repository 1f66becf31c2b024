// SPDX-License-Identifier: Apache-2.0
#include "services/decode/entry_source.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/server_context.h>

#include <chrono>
#include <random>
#include <span>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/error.h"
#include "core/base/sha256.h"
#include "core/base/status_macros.h"
#include "core/engine/prefix_view.h"
#include "core/engine/prompt.h"
#include "maskkv/v1/decode.pb.h"
#include "maskkv/v1/prefill.grpc.pb.h"
#include "services/common/document_reuse.h"
#include "services/common/handle_proto.h"
#include "services/common/status.h"

namespace maskkv::decode {
namespace {

using SteadyTime = std::chrono::steady_clock::time_point;

// So often is a prefill run whose entry is gone before it could be leased.
constexpr int kAttempts = 2;
constexpr std::size_t kMaxIdBytes = 128;
constexpr std::chrono::milliseconds kRetryWait{500};

double MillisecondsSince(SteadyTime start) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
      .count();
}

absl::Status Down(std::string_view reason, std::string_view message) {
  return WithRetryAfter(MakeError(absl::StatusCode::kUnavailable, reason, message), kRetryWait);
}

// What a failed call says to our caller. The peer's own end is no end of ours.
absl::Status PrefillError(const services::Call& call, const absl::Status& status) {
  MASKKV_RETURN_IF_ERROR(call.Alive());
  const bool unreachable =
      status.code() == absl::StatusCode::kUnavailable && ErrorReason(status) == "UNAVAILABLE";
  if (unreachable || status.code() == absl::StatusCode::kCancelled) {
    return Down("PREFILL_DOWN", "prefill: expected the service to answer, found it away");
  }
  return status;
}

// The id of the prefill for one request. A repeated request finds the prefill of the first; another
// request under the same id, or one that must not find what is remembered, makes its own.
std::string PrefillId(const std::string& request_id, const v1::PrefillRequest& request,
                      int attempt) {
  Sha256 hash;
  hash.AddPart(request_id);
  hash.AddPart(request.SerializeAsString());
  const std::string digest = Hex(hash.Finish());
  std::string suffix = absl::StrFormat(".%.16s", digest);
  if (attempt > 0) suffix += absl::StrFormat(".%08x", std::random_device()());
  return request_id.substr(0, kMaxIdBytes - suffix.size()) + suffix;
}

// What every prefill of a request says.
v1::PrefillRequest PrefillOf(const v1::GenerateRequest& request, const CheckedRequest& checked) {
  v1::PrefillRequest prefill;
  *prefill.mutable_prompt() = request.prompt();
  prefill.set_masks(checked.params.gen_length);
  prefill.mutable_response()->Assign(checked.canvas.begin(), checked.canvas.end());
  if (request.has_keep()) *prefill.mutable_keep() = request.keep();
  if (request.has_rope_scaling()) *prefill.mutable_rope_scaling() = request.rope_scaling();
  prefill.set_priority(checked.priority);
  if (checked.votes_over) *prefill.mutable_document() = request.handle();
  return prefill;
}

bool EntryIsGone(const absl::Status& status) {
  return status.code() == absl::StatusCode::kNotFound ||
         status.code() == absl::StatusCode::kAborted;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const v1::PrefillResponse>> EntrySource::CallPrefill(
    const services::Call& call, const grpc::ServerContext& context,
    const v1::PrefillRequest& prefill, const std::stop_token& stop) const {
  const std::unique_ptr<grpc::ClientContext> client = grpc::ClientContext::FromServerContext(
      context, grpc::PropagationOptions().enable_cancellation_propagation());
  call.PrepareClient(*client);
  const std::stop_callback cancel(stop, [&client] { client->TryCancel(); });
  auto response = std::make_shared<v1::PrefillResponse>();
  const absl::Status status = services::FromGrpc(
      v1::PrefillService::NewStub(prefill_)->Prefill(client.get(), prefill, response.get()));
  if (!status.ok()) return PrefillError(call, status);
  return response;
}

absl::Status EntrySource::Map(const services::Call& call, const arena::Handle& handle,
                              PromptEntry& prompt) const {
  if (!map_) return Down("CACHE_DOWN", "cache: expected a cache manager, found none");
  const SteadyTime start = std::chrono::steady_clock::now();
  MASKKV_ASSIGN_OR_RETURN(prompt.entry, map_(call, handle));
  prompt.map_ms += MillisecondsSince(start);
  prompt.view = prompt.entry;
  prompt.pairs = prompt.entry->pairs();
  return absl::OkStatus();
}

absl::StatusOr<PromptEntry> EntrySource::Prefill(const services::Call& call,
                                                 const grpc::ServerContext& context,
                                                 const v1::GenerateRequest& request,
                                                 const CheckedRequest& checked,
                                                 const services::PromptIds& ids,
                                                 const model::ModelConfig& config) const {
  MASKKV_ASSIGN_OR_RETURN(PromptEntry prompt,
                          Obtain(call, context, PrefillOf(request, checked), {}));
  prompt.recomputed = engine::RecomputedTail(config, ids.ids);
  if (checked.params.guided()) {
    MASKKV_RETURN_IF_ERROR(AddUnconditional(call, context, PrefillOf(request, checked),
                                            std::ssize(ids.ids), config.mask_id, prompt));
  }
  return prompt;
}

absl::StatusOr<PromptEntry> EntrySource::Refresh(const services::Call& call,
                                                 const grpc::ServerContext& context,
                                                 const v1::GenerateRequest& request,
                                                 const CheckedRequest& checked,
                                                 const RefreshSpec& refresh) const {
  v1::PrefillRequest prefill = PrefillOf(request, checked);
  // A canvas that has grown votes with all its masks.
  prefill.set_masks(std::ssize(refresh.response));
  prefill.mutable_response()->Assign(refresh.response.begin(), refresh.response.end());
  if (refresh.plan != nullptr) *prefill.mutable_plan() = *refresh.plan;
  return Obtain(call, context, std::move(prefill), refresh.stop);
}

absl::Status EntrySource::AddUnconditional(const services::Call& call,
                                           const grpc::ServerContext& context,
                                           v1::PrefillRequest prefill, std::int64_t tokens,
                                           std::int32_t mask_id, PromptEntry& prompt) const {
  v1::TokenIds& masked = *prefill.mutable_prompt()->mutable_tokens();
  masked.Clear();
  masked.mutable_ids()->Resize(static_cast<int>(tokens), mask_id);
  *prefill.mutable_plan() = prompt.prefill->plan();
  MASKKV_ASSIGN_OR_RETURN(const PromptEntry other, Obtain(call, context, std::move(prefill), {}));
  prompt.unconditional = other.view;
  prompt.pairs += other.pairs;
  prompt.prefill_ms += other.prefill_ms;
  prompt.map_ms += other.map_ms;
  return absl::OkStatus();
}

absl::StatusOr<PromptEntry> EntrySource::Obtain(const services::Call& call,
                                                const grpc::ServerContext& context,
                                                v1::PrefillRequest prefill,
                                                const std::stop_token& stop) const {
  if (prefill_ == nullptr) {
    return Down("PREFILL_DOWN", "prefill: expected a prefill service, found none");
  }
  PromptEntry prompt;
  absl::Status mapped;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const SteadyTime start = std::chrono::steady_clock::now();
    prefill.clear_request_id();
    prefill.set_request_id(PrefillId(call.request_id(), prefill, attempt));
    MASKKV_ASSIGN_OR_RETURN(prompt.prefill, CallPrefill(call, context, prefill, stop));
    prompt.prefill_ms += MillisecondsSince(start);
    mapped = Map(call, services::FromProto(prompt.prefill->handle()), prompt);
    if (mapped.ok()) return prompt;
    if (!EntryIsGone(mapped)) break;
  }
  return mapped;
}

absl::StatusOr<PromptEntry> EntrySource::Reuse(const services::Call& call,
                                               const CheckedRequest& checked,
                                               const services::PromptIds& ids,
                                               std::int64_t servable) const {
  PromptEntry prompt;
  MASKKV_RETURN_IF_ERROR(Map(call, *checked.reused, prompt));
  MASKKV_ASSIGN_OR_RETURN(const services::Reusable reusable,
                          services::ReusablePairs(prompt.entry->metadata(), ids.ids, ids.suffix,
                                                  checked.params.gen_length, servable));
  if (reusable.whole) {
    prompt.recomputed.assign(ids.ids.begin() + servable, ids.ids.end());
    return prompt;
  }
  const std::int64_t positions = reusable.positions;
  const auto view = std::make_shared<engine::PrefixView>(prompt.entry, positions);
  prompt.pairs = view->pairs();
  prompt.view = view;
  prompt.recomputed.assign(ids.ids.begin() + positions, ids.ids.end());
  prompt.recomputed_suffix = ids.suffix;
  return prompt;
}

}  // namespace maskkv::decode
