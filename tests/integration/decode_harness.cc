// SPDX-License-Identifier: Apache-2.0
#include "tests/integration/decode_harness.h"

#include <grpcpp/channel.h>
#include <grpcpp/support/sync_stream.h>

#include <array>
#include <utility>

#include "core/engine/heap_kv.h"
#include "core/engine/prefill.h"
#include "core/engine/prompt.h"
#include "services/common/dtype_proto.h"
#include "services/common/status.h"

namespace maskkv::testing {
namespace {

constexpr std::int64_t kMaxPositions = 512;

class Service final : public v1::DecodeService::Service {
 public:
  explicit Service(const decode::GenerateHandler& handler) : handler_(handler) {}
  grpc::Status Generate(grpc::ServerContext* context, const v1::GenerateRequest* request,
                        grpc::ServerWriter<v1::GenerateEvent>* writer) override {
    return services::ToGrpc(handler_.Run(
        *context, *request, [&](const v1::GenerateEvent& event) { return writer->Write(event); }));
  }

 private:
  const decode::GenerateHandler& handler_;
};

std::unique_ptr<services::Server> StartServer(grpc::Service& service,
                                              telemetry::Registry& registry) {
  const std::array<grpc::Service*, 1> registered{&service};
  absl::StatusOr<services::Server> server = services::Server::Start({}, registered, registry);
  EXPECT_TRUE(server.ok()) << server.status();
  return std::make_unique<services::Server>(*std::move(server));
}

}  // namespace

std::shared_ptr<const services::ModelRuntime> TestModelRuntime() {
  static const std::shared_ptr<const services::ModelRuntime> model = [] {
    services::ModelOptions options;
    options.directory = MASKKV_SOURCE_DIR "/models/tiny-llada";
    options.placement.threads = 1;
    options.max_positions = kMaxPositions;
    absl::StatusOr<std::shared_ptr<const services::ModelRuntime>> loaded =
        services::ModelRuntime::Load(options);
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    return *std::move(loaded);
  }();
  return model;
}

Trace Reply::trace(int sample) const {
  Trace trace;
  for (const v1::Step& step : steps) {
    if (step.sample() != sample) continue;
    for (const v1::Token& token : step.committed()) {
      trace.emplace_back(step.step(), token.position(), token.id(), token.confidence());
    }
  }
  return trace;
}

std::string Reply::text(int sample) const {
  std::string text;
  for (const v1::Step& step : steps) {
    if (step.sample() == sample) text += step.text();
  }
  return text;
}

DecodeHarness::DecodeHarness(const HarnessOptions& options)
    : model(options.model != nullptr ? options.model : TestModelRuntime()),
      backends(model),
      gate(options.gate, clock),
      kept(decode::KeptLimits(), clock),
      prefill_server(StartServer(backends.prefill(), registry)),
      entries(std::make_unique<decode::EntrySource>(
          services::OpenChannel(prefill_server->address()), backends.mapper())) {
  decode::StepLoopOptions loop_options = options.loop;
  loop_options.max_positions = model->max_positions();
  loop = std::make_unique<decode::StepLoop>(model->weights(), model->tokenizer(), loop_options,
                                            metrics.step, clock);
  decode::GenerateParts parts;
  parts.model = model.get();
  parts.loop = loop.get();
  parts.entries = entries.get();
  parts.gate = &gate;
  parts.kept = &kept;
  parts.tokens = options.tokens;
  parts.metrics = &metrics;
  parts.clock = &clock;
  parts.limits = options.limits;
  parts.limits.stop_ids = model->stop_ids();
  handler = std::make_unique<decode::GenerateHandler>(std::move(parts));
  service = std::make_unique<Service>(*handler);
  server = StartServer(*service, registry);
}

std::unique_ptr<v1::DecodeService::Stub> DecodeHarness::NewStub() const {
  return v1::DecodeService::NewStub(services::OpenChannel(server->address()));
}

Reply DecodeHarness::Ask(const v1::GenerateRequest& request,
                         const std::function<void(grpc::ClientContext&)>& prepare) {
  grpc::ClientContext context;
  context.set_wait_for_ready(true);
  if (prepare) prepare(context);
  const std::unique_ptr<v1::DecodeService::Stub> stub = NewStub();
  const auto reader = stub->Generate(&context, request);
  return ReadAll(*reader);
}

Reply DecodeHarness::ReadAll(grpc::ClientReader<v1::GenerateEvent>& reader, std::uint64_t seq) {
  Reply reply;
  v1::GenerateEvent event;
  for (; reader.Read(&event); ++seq) {
    EXPECT_EQ(event.seq(), seq);
    switch (event.event_case()) {
      case v1::GenerateEvent::kStarted:
        EXPECT_EQ(seq, 0U);
        reply.started = event.started();
        break;
      case v1::GenerateEvent::kStep:
        EXPECT_EQ(reply.finished.count(event.step().sample()), 0U);
        reply.steps.push_back(event.step());
        break;
      case v1::GenerateEvent::kFinished:
        EXPECT_TRUE(reply.finished.emplace(event.finished().sample(), event.finished()).second);
        break;
      default:
        ADD_FAILURE() << "an event without content";
    }
  }
  reply.status = services::FromGrpc(reader.Finish());
  return reply;
}

EngineAlone::EngineAlone(std::shared_ptr<const services::ModelRuntime> model)
    : model_(std::move(model)),
      pool_(1),
      transformer_(model_->weights(), pool_, model_->max_positions()) {}

Trace EngineAlone::Run(const std::vector<std::int32_t>& prompt,
                       const engine::GenerateParams& params, const v1::KeepPolicy* keep,
                       double rope_scale, const Around& around) {
  const auto entry_of = [&](std::span<const std::int32_t> ids,
                            std::span<const std::int32_t> response) {
    const std::vector<engine::Row> rows =
        engine::PromptThenResponse(ids, response, model_->config(), around.suffix);
    engine::PrefillRequest prefill;
    prefill.rows = rows;
    prefill.rope_scale = rope_scale;
    prefill.plan = PlanOf(*keep);
    prefill.kv_dtype = services::FromProto(keep->kv_dtype(), model_->dtype());
    auto entry = std::make_shared<engine::HeapKvEntry>();
    EXPECT_TRUE(engine::Prefiller(transformer_).Run(prefill, *entry).ok());
    return entry;
  };
  engine::DecodeRequest request;
  request.prompt_tokens = static_cast<std::int64_t>(prompt.size());
  request.params = params;
  request.rope_scale = rope_scale;
  request.response = around.canvas;
  request.response.resize(static_cast<std::size_t>(params.gen_length), model_->config().mask_id);
  request.suffix_tokens = std::ssize(around.suffix);
  if (keep == nullptr) {
    request.prompt = prompt;
    request.suffix = around.suffix;
  } else {
    request.prompt = engine::RecomputedTail(model_->config(), prompt);
    request.cache = entry_of(prompt, request.response);
    if (params.guided()) {
      const std::vector<std::int32_t> masked(prompt.size(), model_->config().mask_id);
      request.unconditional = entry_of(masked, request.response);
    }
  }
  engine::Decoder decoder(transformer_);
  const absl::StatusOr<engine::RequestId> id = decoder.Add(std::move(request));
  EXPECT_TRUE(id.ok()) << id.status();
  Trace trace;
  while (decoder.running() > 0) {
    const engine::StepEvent event = std::move(decoder.Step().front());
    for (const engine::Prediction& prediction : event.committed) {
      trace.emplace_back(event.step, prediction.position, prediction.token, prediction.confidence);
    }
    if (!event.refresh_due) continue;
    const auto fresh = entry_of(prompt, decoder.Find(*id)->tokens());
    EXPECT_TRUE(decoder.SwapCache(*id, fresh).ok());
  }
  return trace;
}

}  // namespace maskkv::testing
