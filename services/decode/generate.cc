// SPDX-License-Identifier: Apache-2.0
#include "services/decode/generate.h"

#include <grpc/grpc.h>
#include <grpcpp/server_context.h>

#include <chrono>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>

#include "core/base/sha256.h"
#include "core/base/status_macros.h"
#include "core/engine/prompt.h"
#include "core/telemetry/log.h"
#include "maskkv/v1/decode.pb.h"
#include "maskkv/v1/prefill.pb.h"
#include "services/common/memory.h"
#include "services/common/rope_proto.h"
#include "services/decode/event_proto.h"
#include "services/decode/filled_spans.h"
#include "services/decode/refresher.h"

namespace maskkv::decode {
namespace {

using telemetry::LogLevel;

// How long a handler waits for an event before it looks whether its call is still wanted.
constexpr std::chrono::milliseconds kLook{20};

double Seconds(Duration duration) { return std::chrono::duration<double>(duration).count(); }

// Whether the caller is on this machine: only then is the tenant that it names believed.
bool IsLocal(const std::string& peer) {
  for (const char* const prefix :
       {"unix:", "unix-abstract:", "ipv4:127.", "ipv6:[::1]", "ipv6:%5B::1%5D", "inproc"}) {
    if (peer.starts_with(prefix)) return true;
  }
  return false;
}

std::string_view Metadata(const grpc::ServerContext& context, const char* key) {
  const auto [begin, end] = context.client_metadata().equal_range(key);
  if (begin == end || std::next(begin) != end) return "";
  return {begin->second.data(), begin->second.size()};
}

// Ends a call whose handler is blocked writing. The status reaches the client behind what is on its
// way, so it needs no room in the window of a client that does not read.
void EndBlockedCall(grpc::ServerContext& context, const absl::Status& status) {
  grpc_call_cancel_with_status(context.c_call(), static_cast<grpc_status_code>(status.code()),
                               std::string(status.message()).c_str(), nullptr);
}

Outcome OutcomeOf(EndReason reason) {
  switch (reason) {
    case EndReason::kStop:
      return Outcome::kStop;
    case EndReason::kLength:
      return Outcome::kLength;
    case EndReason::kStopString:
      return Outcome::kStopString;
  }
  return Outcome::kError;
}

// A gauge that is one higher while this lives.
class Counted {
 public:
  explicit Counted(const telemetry::Gauge& gauge) : gauge_(&gauge) { gauge_->Add(1); }
  ~Counted() { gauge_->Add(-1); }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;

 private:
  const telemetry::Gauge* gauge_;
};

}  // namespace

struct GenerateHandler::Answer {
  grpc::ServerContext& context;
  const v1::GenerateRequest& request;
  const Writer& write;
  const services::Call call;
  const CheckedRequest checked;
  const TimePoint arrival;

  std::optional<RequestGate::Pass> pass;  // until the first step
  std::optional<Counted> waiting, running;
  services::PromptIds ids;
  PromptEntry prompt;
  double rope_scale = 1;
  RequestFigures figures;
  std::unique_ptr<Refresher> refresher;  // outlives the group, which gives it orders
  std::unique_ptr<SequenceGroup> group;
  std::uint64_t seq = 0;
  std::optional<Outcome> outcome;  // of the sample that ended last
  std::int64_t tokens = 0;         // of all answers
};

absl::StatusOr<services::Call> GenerateHandler::Authenticate(
    const grpc::ServerContext& context, const v1::GenerateRequest& request) const {
  MASKKV_ASSIGN_OR_RETURN(services::Call call, services::Call::Read(context, request.request_id()));
  if (parts_.tokens != nullptr) {
    MASKKV_ASSIGN_OR_RETURN(std::string tenant,
                            parts_.tokens->Authenticate(Metadata(context, "authorization")));
    call.set_tenant(std::move(tenant));
  } else if (!IsLocal(context.peer())) {
    call.set_tenant(services::kDefaultTenant);
  }
  return call;
}

absl::StatusOr<CheckedRequest> GenerateHandler::Check(const v1::GenerateRequest& request) const {
  std::vector<std::int32_t> canvas;
  if (request.has_canvas()) {
    MASKKV_ASSIGN_OR_RETURN(
        canvas, parts_.model->TokenizeCanvas(request.canvas(), parts_.limits.max_gen_length));
  }
  return CheckRequest(request, parts_.limits, std::move(canvas));
}

absl::Status GenerateHandler::Run(grpc::ServerContext& context, const v1::GenerateRequest& request,
                                  const Writer& write) const {
  const TimePoint arrival = parts_.clock->Now();
  const auto refuse = [&](const absl::Status& status) {
    parts_.metrics->Finish(decode::OutcomeOf(status));
    return status;
  };
  absl::StatusOr<services::Call> call = Authenticate(context, request);
  if (!call.ok()) return refuse(call.status());
  absl::StatusOr<CheckedRequest> checked = Check(request);
  if (!checked.ok()) return refuse(checked.status());
  Answer answer{.context = context,
                .request = request,
                .write = write,
                .call = *std::move(call),
                .checked = *std::move(checked),
                .arrival = arrival,
                .pass = {},
                .waiting = {},
                .running = {},
                .ids = {},
                .prompt = {},
                .rope_scale = 1,
                .figures = {},
                .refresher = nullptr,
                .group = nullptr,
                .outcome = {}};
  const absl::Status status = Serve(answer);
  Report(answer, status);
  return status;
}

absl::Status GenerateHandler::Serve(Answer& answer) const {
  MASKKV_ASSIGN_OR_RETURN(answer.pass, parts_.gate->Enter());
  answer.waiting.emplace(parts_.metrics->requests_waiting);
  MASKKV_RETURN_IF_ERROR(PreparePrompt(answer));
  MASKKV_RETURN_IF_ERROR(Submit(answer));
  MASKKV_RETURN_IF_ERROR(SendStarted(answer));
  MASKKV_RETURN_IF_ERROR(SendEvents(answer));
  const PromptEntry& prompt = answer.prompt;
  if (answer.checked.keep_entry.count() > 0 && prompt.entry != nullptr) {
    const arena::EntryMetadata& metadata = prompt.entry->metadata();
    parts_.kept->Keep(answer.call.tenant(), {metadata.epoch, metadata.entry_id}, prompt.entry,
                      answer.figures.entry_bytes, answer.checked.keep_entry);
  }
  return absl::OkStatus();
}

absl::Status GenerateHandler::PreparePrompt(Answer& answer) const {
  const services::ModelRuntime& model = *parts_.model;
  MASKKV_ASSIGN_OR_RETURN(answer.ids, model.Tokenize(answer.request.prompt()));
  const std::int64_t tokens = answer.ids.tokens();
  MASKKV_RETURN_IF_ERROR(model.CheckLength(tokens, answer.checked.params.longest()));
  if (answer.checked.use_cache) {
    const Counted waiting(parts_.metrics->waiting_for_prefill);
    if (answer.checked.reused) {
      const std::int64_t servable =
          engine::ServableTokens(model.config(), std::ssize(answer.ids.ids));
      MASKKV_ASSIGN_OR_RETURN(
          answer.prompt, parts_.entries->Reuse(answer.call, answer.checked, answer.ids, servable));
    } else {
      MASKKV_ASSIGN_OR_RETURN(answer.prompt,
                              parts_.entries->Prefill(answer.call, answer.context, answer.request,
                                                      answer.checked, answer.ids, model.config()));
    }
    answer.rope_scale = answer.prompt.entry->shape().rope_scale;
  } else {
    MASKKV_RETURN_IF_ERROR(PrepareWholePrompt(answer));
  }
  const model::ModelConfig& config = model.config();
  RequestFigures& figures = answer.figures;
  figures.prompt_tokens = tokens;
  figures.kept_pairs = answer.prompt.pairs;
  engine::EntryShape stored{config.layers, config.kv_heads, config.head_dim,
                            kernels::PairDType(model.dtype())};
  if (answer.prompt.entry != nullptr) stored = answer.prompt.entry->shape();
  figures.full_bytes =
      static_cast<std::uint64_t>(tokens * config.layers * config.kv_heads * stored.KvBytes());
  if (answer.prompt.prefill != nullptr) {
    figures.entry_bytes = answer.prompt.prefill->entry_bytes();
  } else if (answer.prompt.entry != nullptr) {
    figures.entry_bytes = static_cast<std::uint64_t>(answer.prompt.entry->bytes());
  }
  figures.prefill_ms = answer.prompt.prefill_ms;
  figures.map_ms = answer.prompt.map_ms;
  return absl::OkStatus();
}

absl::Status GenerateHandler::PrepareWholePrompt(Answer& answer) const {
  const model::ModelConfig& config = parts_.model->config();
  const std::int64_t tokens = answer.ids.tokens();
  const engine::GenerateParams& params = answer.checked.params;
  MASKKV_ASSIGN_OR_RETURN(
      answer.rope_scale,
      services::RopeScaleOf(
          answer.request.has_rope_scaling() ? &answer.request.rope_scaling() : nullptr, config,
          tokens + params.gen_length));
  const std::int64_t canvases = params.guided() ? 2 : 1;
  return services::CheckFits(config, canvases * (tokens + params.longest()), /*kv_layers=*/1);
}

absl::Status GenerateHandler::Submit(Answer& answer) const {
  engine::DecodeRequest sample;
  const bool cached = answer.checked.use_cache;
  sample.prompt = cached ? answer.prompt.recomputed : answer.ids.ids;
  sample.prompt_tokens = std::ssize(answer.ids.ids);
  sample.response = answer.checked.canvas;
  sample.suffix = cached ? answer.prompt.recomputed_suffix : answer.ids.suffix;
  sample.suffix_tokens = std::ssize(answer.ids.suffix);
  sample.params = answer.checked.params;
  sample.provisional = answer.checked.provisional;
  sample.cache = answer.prompt.view;
  sample.unconditional = answer.prompt.unconditional;
  sample.rope_scale = answer.rope_scale;
  GroupSpec spec;
  spec.stop = answer.checked.stop;
  spec.priority = answer.checked.priority;
  spec.alive = [&call = answer.call] { return call.Alive(); };
  spec.abandon = [&context = answer.context](const absl::Status& status) {
    EndBlockedCall(context, status);
  };
  if (answer.checked.params.refreshes()) {
    PrepareRefresh(answer);
    spec.refresh = [refresher = answer.refresher.get()](RefreshOrder order) {
      refresher->Order(std::move(order));
    };
  }
  for (std::int32_t i = 0; i < answer.checked.samples; ++i) {
    spec.sequences.push_back(sample);
    ++sample.params.seed;  // wraps around
  }
  if (sample.params.caches_response()) {
    const std::int64_t rows =
        std::ssize(sample.prompt) + sample.params.gen_length + std::ssize(sample.suffix);
    MASKKV_RETURN_IF_ERROR(services::CheckBytesFit(
        answer.checked.samples * engine::ResponseCache::BytesOf(parts_.model->config(), rows),
        "the response caches of the samples"));
  }
  answer.figures.queue_ms = Milliseconds(parts_.clock->Now() - answer.arrival) -
                            answer.figures.prefill_ms - answer.figures.map_ms;
  MASKKV_ASSIGN_OR_RETURN(answer.group, parts_.loop->Submit(std::move(spec)));
  // The sequences hold the entry: it is free when the last of them has ended, unless it is kept.
  answer.prompt.view.reset();
  answer.prompt.unconditional.reset();
  answer.prompt.recomputed = {};
  return absl::OkStatus();
}

void GenerateHandler::PrepareRefresh(Answer& answer) const {
  const auto prefill = [this, &answer, plan = answer.prompt.prefill->plan()](
                           const std::vector<std::int32_t>& response,
                           const std::stop_token& stop) -> absl::StatusOr<FreshEntry> {
    MASKKV_ASSIGN_OR_RETURN(
        PromptEntry prompt,
        parts_.entries->Refresh(answer.call, answer.context, answer.request, answer.checked,
                                {.response = response, .plan = &plan, .stop = stop}));
    return FreshEntry{std::move(prompt.view), std::move(prompt.prefill), {}};
  };
  answer.refresher = std::make_unique<Refresher>(prefill, *parts_.loop);
}

absl::Status GenerateHandler::SendStarted(Answer& answer) const {
  v1::GenerateEvent event;
  v1::Started& started = *event.mutable_started();
  started.set_request_id(answer.call.request_id());
  started.set_prompt_tokens(answer.figures.prompt_tokens);
  started.set_rope_scale(answer.rope_scale);
  parts_.model->FillProvenance(*started.mutable_provenance());
  PromptEntry& prompt = answer.prompt;
  if (prompt.prefill != nullptr) {
    *started.mutable_handle() = prompt.prefill->handle();
    *started.mutable_kept() = prompt.prefill->kept();
    started.mutable_provenance()->set_plan_generation(
        prompt.prefill->provenance().plan_generation());
    started.mutable_provenance()->set_entry_digest(prompt.prefill->provenance().entry_digest());
  } else if (prompt.entry != nullptr) {
    *started.mutable_handle() = answer.request.handle();
    started.mutable_provenance()->set_plan_generation(prompt.entry->metadata().plan_generation);
    started.mutable_provenance()->set_entry_digest(Hex(prompt.entry->ContentDigest()));
  }
  // What stays is the lease of a kept entry.
  prompt.prefill.reset();
  if (answer.checked.keep_entry.count() == 0) prompt.entry.reset();
  parts_.metrics->prompt_tokens.Add(static_cast<double>(answer.figures.prompt_tokens));
  return Send(answer, event);
}

absl::Status GenerateHandler::SendEvents(Answer& answer) const {
  while (!answer.group->done()) {
    const std::optional<SequenceEvent> event = answer.group->Next(kLook);
    MASKKV_RETURN_IF_ERROR(event ? SendEvent(answer, *event) : answer.call.Alive());
  }
  return absl::OkStatus();
}

absl::Status GenerateHandler::SendEvent(Answer& answer, const SequenceEvent& event) const {
  if (const auto* end = std::get_if<SequenceEnd>(&event.what)) {
    MASKKV_RETURN_IF_ERROR(end->status);
    return SendEnd(answer, event);
  }
  const auto& update = std::get<StepUpdate>(event.what);
  v1::GenerateEvent message;
  FillStep(event.sequence, update, *message.mutable_step());
  if (answer.pass) {  // the first step
    answer.pass.reset();
    answer.waiting.reset();
    answer.running.emplace(parts_.metrics->requests_running);
  }
  MASKKV_RETURN_IF_ERROR(Send(answer, message));
  if (answer.figures.first_token_ms == 0 && !update.step.committed.empty()) {
    const Duration since = parts_.clock->Now() - answer.arrival;
    answer.figures.first_token_ms = Milliseconds(since);
    parts_.metrics->first_token_seconds.Observe(Seconds(since));
  }
  return absl::OkStatus();
}

absl::Status GenerateHandler::SendEnd(Answer& answer, const SequenceEvent& event) const {
  const auto& end = std::get<SequenceEnd>(event.what);
  answer.figures.total_ms = Milliseconds(parts_.clock->Now() - answer.arrival);
  v1::GenerateEvent message;
  FillFinished(event.sequence, end, answer.figures, *message.mutable_finished());
  if (answer.checked.params.whole_canvas) {
    FillSpans(answer.checked.canvas, *parts_.model, *message.mutable_finished());
  }
  const auto tokens = static_cast<std::int64_t>(end.tokens.size());
  answer.outcome = OutcomeOf(end.reason);
  answer.tokens += tokens;
  parts_.metrics->generated_tokens.Add(static_cast<double>(tokens));
  parts_.metrics->ObserveTokensPerStep(answer.checked.params.rule.rule, end.committed, end.steps);
  parts_.metrics->queue_seconds.Observe(message.finished().timings().queue_ms() / 1e3);
  if (tokens > 0) {
    parts_.metrics->output_token_seconds.Observe(end.step_seconds / static_cast<double>(tokens));
  }
  return Send(answer, message);
}

absl::Status GenerateHandler::Send(Answer& answer, v1::GenerateEvent& event) const {
  event.set_seq(answer.seq++);
  if (answer.write(event)) return absl::OkStatus();
  // The loop may have ended the call for a reader that did not read: then its error is the reason.
  while (answer.group != nullptr && !answer.group->done()) {
    const std::optional<SequenceEvent> missed = answer.group->Next(std::chrono::milliseconds(0));
    if (!missed) break;
    if (const auto* end = std::get_if<SequenceEnd>(&missed->what)) {
      MASKKV_RETURN_IF_ERROR(end->status);
    }
  }
  MASKKV_RETURN_IF_ERROR(answer.call.Alive());
  return absl::CancelledError("the client has gone");
}

void GenerateHandler::Report(const Answer& answer, const absl::Status& status) const {
  const Duration total = parts_.clock->Now() - answer.arrival;
  parts_.metrics->request_seconds.Observe(Seconds(total));
  parts_.metrics->Finish(status.ok() && answer.outcome ? *answer.outcome
                                                       : decode::OutcomeOf(status));
  const std::string code = absl::StatusCodeToString(status.code());
  const RequestFigures& figures = answer.figures;
  telemetry::Log(status.code() == absl::StatusCode::kInternal ? LogLevel::kError : LogLevel::kInfo,
                 "generate",
                 {{"request_id", std::string_view(answer.call.log_id())},
                  {"traceparent", std::string_view(answer.call.trace_parent())},
                  {"code", std::string_view(code)},
                  {"prompt_tokens", figures.prompt_tokens},
                  {"answer_tokens", answer.tokens},
                  {"samples", static_cast<std::int64_t>(answer.checked.samples)},
                  {"prefill_ms", figures.prefill_ms},
                  {"map_ms", figures.map_ms},
                  {"total_ms", Milliseconds(total)}});
}

}  // namespace maskkv::decode
