// SPDX-License-Identifier: Apache-2.0
#include "services/prefill/prefill_handler.h"

#include <algorithm>
#include <utility>

#include "core/arena/layout.h"
#include "core/base/error.h"
#include "core/base/sha256.h"
#include "core/base/status_macros.h"
#include "core/engine/document_copy.h"
#include "core/engine/prompt.h"
#include "core/telemetry/log.h"
#include "maskkv/v1/budget.pb.h"
#include "maskkv/v1/prefill.pb.h"
#include "services/common/document_reuse.h"
#include "services/common/dtype_proto.h"
#include "services/common/handle_proto.h"
#include "services/common/plan_proto.h"
#include "services/common/rope_proto.h"
#include "services/prefill/explain.h"

namespace maskkv::prefill {
namespace {

double Seconds(Duration duration) { return std::chrono::duration<double>(duration).count(); }

// One more of something while it lives.
class Counted {
 public:
  explicit Counted(const telemetry::Gauge& gauge) : gauge_(gauge) { gauge_.Add(1); }
  ~Counted() { gauge_.Add(-1); }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;

 private:
  const telemetry::Gauge& gauge_;
};

// Of everything that makes two requests the same one, but the id. The messages have no maps and no
// unknown fields of ours, so their bytes are a function of their fields.
arena::Digest DigestOf(const v1::PrefillRequest& request) {
  v1::PrefillRequest rest = request;
  rest.clear_request_id();
  Sha256 hash;
  hash.AddPart(rest.SerializeAsString());
  return hash.Finish();
}

// Null for generation 0. Errors: of ReadPlan.
absl::StatusOr<std::shared_ptr<const budget::Plan>> GivenPlan(const v1::Plan& message) {
  if (message.generation() == 0) return nullptr;
  MASKKV_ASSIGN_OR_RETURN(budget::Plan plan, services::ReadPlan(message));
  return std::make_shared<const budget::Plan>(std::move(plan));
}

template <typename Request>
std::span<const std::int32_t> ResponseIds(const Request& request) {
  return {request.response().data(), static_cast<std::size_t>(request.response_size())};
}

// Empty if the response is all masks, so that it finds the entry of one that says nothing.
absl::StatusOr<std::vector<std::int32_t>> ResponseOf(std::span<const std::int32_t> ids,
                                                     std::int64_t masks,
                                                     const model::ModelConfig& config) {
  std::vector<std::int32_t> response(ids.begin(), ids.end());
  if (const absl::Status status = engine::ValidateResponse(config, response, masks); !status.ok()) {
    return MakeError(absl::StatusCode::kInvalidArgument, "BAD_RESPONSE",
                     std::string(status.message()));
  }
  if (std::ranges::count(response, config.mask_id) == std::ssize(response)) response.clear();
  return response;
}

}  // namespace

PrefillHandler::PrefillHandler(const HandlerOptions& options, const Metrics& metrics)
    : model_(options.model),
      cache_(options.cache),
      kv_dtype_(options.kv_dtype),
      plans_(options.plans),
      max_message_bytes_(options.max_message_bytes),
      clock_(*options.clock),
      metrics_(metrics),
      gate_(options.queue, clock_),
      compressor_(model_, cache_, options.turns, metrics.turns),
      runs_(options.remember, clock_),
      observations_(model_->config().layers, model_->config().kv_heads, clock_) {}

absl::Status PrefillHandler::Prefill(const services::Call& call, const v1::PrefillRequest& request,
                                     v1::PrefillResponse& response) {
  const TimePoint start = clock_.Now();
  const absl::StatusOr<Done> done = Serve(call, request);
  if (done.ok()) response = *done->answer;
  Finished("prefill", call, done.status(), done.ok() ? done->outcome : OutcomeOf(done.status()),
           start, done.ok() ? &response : nullptr);
  return done.status();
}

absl::Status PrefillHandler::Explain(const services::Call& call, const v1::ExplainRequest& request,
                                     v1::ExplainResponse& response) {
  const TimePoint start = clock_.Now();
  const absl::Status status = [&]() -> absl::Status {
    MASKKV_ASSIGN_OR_RETURN(
        const Job job, MakeJob(request.has_prompt() ? &request.prompt() : nullptr, request.masks(),
                               ResponseIds(request), request.has_keep() ? &request.keep() : nullptr,
                               request.has_rope_scaling() ? &request.rope_scaling() : nullptr,
                               PlanInForce().get()));
    MASKKV_RETURN_IF_ERROR(
        CheckExplanation(model_->config(), job, request.with_scores(), max_message_bytes_));
    const auto alive = [&] { return call.Alive(); };
    MASKKV_ASSIGN_OR_RETURN(
        const ForwardGate::Turn turn,
        WaitForTurn(job, request.priority(),
                    ExplainingBytes(model_->config(), job, request.with_scores()), alive));
    const Counted running(metrics_.running);
    MASKKV_RETURN_IF_ERROR(prefill::Explain(compressor_, model_->config(), job,
                                            request.with_scores(), alive, response));
    model_->FillProvenance(*response.mutable_provenance());
    return absl::OkStatus();
  }();
  if (!status.ok()) response.Clear();
  Finished("explain", call, status, status.ok() ? Outcome::kExplained : OutcomeOf(status), start,
           nullptr);
  return status;
}

void PrefillHandler::ModelInfo(v1::ModelInfoResponse& response) const {
  const model::ModelConfig& config = model_->config();
  response.set_model_name(model_->name());
  response.set_model_fingerprint(model_->fingerprint());
  response.set_family(config.model_type);
  response.set_layers(static_cast<std::int32_t>(config.layers));
  response.set_heads(static_cast<std::int32_t>(config.heads));
  response.set_kv_heads(static_cast<std::int32_t>(config.kv_heads));
  response.set_head_dim(static_cast<std::int32_t>(config.head_dim));
  response.set_hidden(static_cast<std::int32_t>(config.hidden));
  response.set_vocabulary(config.vocab_rows);
  response.set_mask_id(config.mask_id);
  response.mutable_stop_ids()->Assign(model_->stop_ids().begin(), model_->stop_ids().end());
  response.set_max_positions(model_->max_positions());
  response.set_dtype(std::string(kernels::Name(model_->dtype())));
  const engine::EntryShape shape{config.layers, config.kv_heads, config.head_dim, kv_dtype_};
  response.set_kv_dtype(services::ToProto(kv_dtype_));
  response.set_pair_bytes(static_cast<std::uint64_t>(shape.PairBytes()));
  response.set_has_tokenizer(model_->tokenizer() != nullptr);
  response.set_layout(arena::LayoutHashText());
}

absl::Status PrefillHandler::Tokenize(const v1::TokenizeRequest& request,
                                      v1::TokenizeResponse& response) const {
  MASKKV_ASSIGN_OR_RETURN(const services::PromptIds prompt, model_->Tokenize(request.prompt()));
  response.mutable_ids()->Assign(prompt.ids.begin(), prompt.ids.end());
  response.set_document_tokens(static_cast<std::int32_t>(prompt.document_tokens));
  response.mutable_suffix_ids()->Assign(prompt.suffix.begin(), prompt.suffix.end());
  return absl::OkStatus();
}

absl::Status PrefillHandler::Vocabulary(v1::VocabularyResponse& response) const {
  const model::Tokenizer* const tokenizer = model_->tokenizer();
  if (tokenizer == nullptr) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "NO_TOKENIZER",
                     "vocabulary: expected a model with a tokenizer, found none");
  }
  for (std::int32_t id = 0; id < tokenizer->vocab_size(); ++id) {
    std::string& token = *response.add_tokens();
    if (!tokenizer->IsSpecial(id)) token = tokenizer->TokenBytes(id);
  }
  return absl::OkStatus();
}

absl::Status PrefillHandler::WarmUp(const std::function<absl::Status()>& alive) {
  MASKKV_ASSIGN_OR_RETURN(const ForwardGate::Turn turn,
                          gate_.Wait(schedule::AdmissionQueue::kMaxPriority, 0, alive));
  return compressor_.WarmUp();
}

void PrefillHandler::Report(const std::string& reporter) {
  if (plans_ == nullptr) return;
  v1::ReportRequest report;
  report.set_reporter(reporter);
  observations_.Take(model_->fingerprint(), gate_.waiting(), gate_.LongestWait(), report);
  plans_->Report(report);
}

absl::StatusOr<Job> PrefillHandler::MakeJob(const v1::Prompt* prompt, std::int64_t masks,
                                            std::span<const std::int32_t> response,
                                            const v1::KeepPolicy* keep,
                                            const v1::RopeScaling* rope_scaling,
                                            const budget::Plan* plan) const {
  if (prompt == nullptr) {
    return MakeError(absl::StatusCode::kInvalidArgument, "BAD_PROMPT",
                     "prompt: expected chat, document, tokens or text, found none");
  }
  Job job;
  job.masks = masks;
  MASKKV_RETURN_IF_ERROR(model_->CheckLength(0, masks));
  MASKKV_ASSIGN_OR_RETURN(job.prompt, model_->Tokenize(*prompt, services::MaskedPrompt::kAllowed));
  MASKKV_RETURN_IF_ERROR(model_->CheckLength(job.prompt.tokens(), masks));
  MASKKV_ASSIGN_OR_RETURN(job.response, ResponseOf(response, masks, model_->config()));
  MASKKV_ASSIGN_OR_RETURN(job.rope_scale, services::RopeScaleOf(rope_scaling, model_->config(),
                                                                job.prompt.tokens() + masks));
  MASKKV_ASSIGN_OR_RETURN(job.keep, ResolveKeep(keep, {.layers = model_->config().layers,
                                                       .kv_heads = model_->config().kv_heads,
                                                       .model_fingerprint = model_->fingerprint(),
                                                       .plan = plan,
                                                       .profile = model_->profile(),
                                                       .kv_dtype = kv_dtype_}));
  return job;
}

absl::StatusOr<PrefillHandler::Done> PrefillHandler::Serve(const services::Call& call,
                                                           const v1::PrefillRequest& request) {
  std::shared_ptr<const budget::Plan> plan = PlanInForce();
  if (request.has_plan()) {
    MASKKV_ASSIGN_OR_RETURN(plan, GivenPlan(request.plan()));
  }
  MASKKV_ASSIGN_OR_RETURN(
      Job job, MakeJob(request.has_prompt() ? &request.prompt() : nullptr, request.masks(),
                       ResponseIds(request), request.has_keep() ? &request.keep() : nullptr,
                       request.has_rope_scaling() ? &request.rope_scaling() : nullptr, plan.get()));
  job.ignore_cached = request.ignore_cached();
  // The controller learns from what its plan in force does to prompts that say something.
  if (request.has_plan() || services::IsMasked(model_->config(), job.prompt.ids)) {
    job.keep.plan_amount = false;
  }
  if (request.has_document()) MASKKV_RETURN_IF_ERROR(MapDocument(call, request, job));
  if (!request.request_id().empty()) return ServeOnce(call, request, job, plan.get());
  MASKKV_ASSIGN_OR_RETURN(Answer answer, Compress(call, job, request.priority(), plan.get()));
  const Outcome outcome = answer->cached() ? Outcome::kCached : Outcome::kForward;
  return Done{std::move(answer), outcome};
}

absl::Status PrefillHandler::MapDocument(const services::Call& call,
                                         const v1::PrefillRequest& request, Job& job) const {
  if (!job.prompt.suffix.empty()) {
    return MakeError(absl::StatusCode::kInvalidArgument, "BAD_PROMPT",
                     "suffix: expected none over a document's copy, found one");
  }
  MASKKV_ASSIGN_OR_RETURN(job.document, cache_->Map(call, services::FromProto(request.document()),
                                                    model_->fingerprint_digest()));
  const std::span<const std::int32_t> ids = job.prompt.ids;
  MASKKV_ASSIGN_OR_RETURN(
      job.document_tokens,
      services::DocumentPositions(job.document->metadata(), ids, job.masks,
                                  engine::ServableTokens(model_->config(), std::ssize(ids))));
  job.rope_scale = job.document->shape().rope_scale;
  // The controller learns of whole prompts.
  job.keep.plan_amount = false;
  // Said before the request waits for its turn.
  return engine::DocumentCopy::Of(*job.document, job.document_tokens).status();
}

absl::StatusOr<PrefillHandler::Done> PrefillHandler::ServeOnce(const services::Call& call,
                                                               const v1::PrefillRequest& request,
                                                               const Job& job,
                                                               const budget::Plan* plan) {
  MASKKV_ASSIGN_OR_RETURN(
      JoinedRuns::Outcome done,
      runs_.Do({.tenant = call.tenant(),
                .request_id = request.request_id(),
                .digest = DigestOf(request),
                .alive = [&] { return call.Alive(); },
                .run = [&] { return Compress(call, job, request.priority(), plan); },
                .still_good = [&](const Answer& answer) { return StillThere(call, *answer); },
                .on_waiting =
                    [&](bool waiting) {
                      metrics_.waiting.Add(waiting ? 1 : -1);
                      metrics_.waiting_joined.Add(waiting ? 1 : -1);
                    }}));
  const Outcome outcome = !done.own               ? Outcome::kRemembered
                          : done.answer->cached() ? Outcome::kCached
                                                  : Outcome::kForward;
  return Done{std::move(done.answer), outcome};
}

// An id that outlived its entry (evicted, or the daemon restarted) gets a new entry. While the
// daemon is away nobody knows, and the answer is what it was.
bool PrefillHandler::StillThere(const services::Call& call, const v1::PrefillResponse& answer) {
  const absl::Status status =
      cache_->Map(call, services::FromProto(answer.handle()), model_->fingerprint_digest())
          .status();
  return !absl::IsNotFound(status) && !absl::IsAborted(status) && !absl::IsDataLoss(status);
}

absl::StatusOr<ForwardGate::Turn> PrefillHandler::WaitForTurn(
    const Job& job, std::int32_t priority, std::uint64_t more_bytes,
    const std::function<absl::Status()>& alive) {
  const Counted waiting(metrics_.waiting);
  const Counted waiting_by_reason(metrics_.waiting_for_forward);
  absl::StatusOr<ForwardGate::Turn> turn =
      gate_.Wait(priority, WorkingBytes(model_->config(), job) + more_bytes, alive);
  if (turn.ok()) {
    metrics_.queue_seconds.Observe(Seconds(turn->waited()));
    observations_.AddWait(turn->waited());
  }
  return turn;
}

absl::StatusOr<Answer> PrefillHandler::Compress(const services::Call& call, const Job& job,
                                                std::int32_t priority, const budget::Plan* plan) {
  MASKKV_ASSIGN_OR_RETURN(const ForwardGate::Turn turn,
                          WaitForTurn(job, priority, 0, [&] { return call.Alive(); }));
  const Counted running(metrics_.running);
  MASKKV_ASSIGN_OR_RETURN(const Compressed compressed, compressor_.Run(call, job));
  auto answer = std::make_shared<v1::PrefillResponse>();
  FillAnswer(compressed.facts, compressed.handle, !compressed.forward.has_value(), *answer);
  model_->FillProvenance(*answer->mutable_provenance());
  v1::Plan& shown = *answer->mutable_plan();
  if (plan != nullptr) services::FillPlan(*plan, shown);
  v1::PrefillTimings& timings = *answer->mutable_timings();
  timings.set_queue_ms(Milliseconds(turn.waited()));
  timings.set_publish_ms(1e3 * compressed.publish_seconds);
  if (compressed.forward) {
    const engine::PrefillPhases& phases = compressed.forward->phases;
    timings.set_forward_ms(1e3 * phases.forward);
    timings.set_score_ms(1e3 * phases.score);
    timings.set_select_ms(1e3 * phases.select);
    timings.set_pack_ms(1e3 * phases.pack);
    Observe(compressed, job);
  }
  return Answer(std::move(answer));
}

void PrefillHandler::Observe(const Compressed& compressed, const Job& job) {
  const engine::PrefillResult& forward = *compressed.forward;
  metrics_.forward_seconds.Observe(forward.phases.forward);
  metrics_.score_seconds.Observe(forward.phases.score);
  metrics_.select_seconds.Observe(forward.phases.select);
  metrics_.pack_seconds.Observe(forward.phases.pack);
  metrics_.publish_seconds.Observe(compressed.publish_seconds);
  metrics_.input_bytes.Add(static_cast<double>(compressed.facts.full_bytes));
  metrics_.output_bytes.Add(static_cast<double>(compressed.facts.bytes));
  metrics_.pairs_kept.Add(static_cast<double>(forward.pairs()));
  metrics_.pairs_considered.Add(static_cast<double>(
      forward.prompt_tokens * static_cast<std::int64_t>(compressed.facts.per_head.size())));
  metrics_.mass_kept.Observe(compressed.facts.metadata.kept_mass);
  metrics_.CountPolicy(job.keep.plan);
  if (job.keep.plan_amount) observations_.AddForward(forward);
}

void PrefillHandler::Finished(std::string_view event, const services::Call& call,
                              const absl::Status& status, Outcome outcome, TimePoint start,
                              const v1::PrefillResponse* answer) const {
  using telemetry::LogLevel;
  const Duration took = clock_.Now() - start;
  metrics_.Finish(outcome);
  metrics_.request_seconds.Observe(Seconds(took));
  if (answer != nullptr) metrics_.prompt_tokens.Add(static_cast<double>(answer->prompt_tokens()));
  if (!status.ok()) {
    telemetry::Log(outcome == Outcome::kError ? LogLevel::kWarning : LogLevel::kInfo, event,
                   {{"request_id", call.log_id()},
                    {"traceparent", call.trace_parent()},
                    {"reason", ErrorReason(status)},
                    {"total_ms", Milliseconds(took)}});
    return;
  }
  telemetry::Log(LogLevel::kInfo, event,
                 {{"request_id", call.log_id()},
                  {"traceparent", call.trace_parent()},
                  {"prompt_tokens", answer != nullptr ? answer->prompt_tokens() : std::int64_t{0}},
                  {"pairs", answer != nullptr ? answer->kept().pairs() : std::int64_t{0}},
                  {"cached", answer != nullptr && answer->cached()},
                  {"queue_ms", answer != nullptr ? answer->timings().queue_ms() : 0.0},
                  {"total_ms", Milliseconds(took)}});
}

}  // namespace maskkv::prefill
