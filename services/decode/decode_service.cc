// SPDX-License-Identifier: Apache-2.0
#include "services/decode/decode_service.h"

#include <grpcpp/channel.h>
#include <grpcpp/support/sync_stream.h>
#include <unistd.h>

#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/error.h"
#include "core/base/status_macros.h"
#include "core/telemetry/log.h"
#include "maskkv/v1/budget.pb.h"
#include "maskkv/v1/decode.grpc.pb.h"
#include "services/common/plan_watcher.h"
#include "services/common/server.h"
#include "services/common/status.h"
#include "services/decode/generate.h"

namespace maskkv::decode {
namespace {

using std::chrono::milliseconds;

// Between two looks at kept entries; between two reports.
constexpr milliseconds kTick{250}, kReportPeriod{1000};
// How long the first step may take: a model may have to be read from disk.
constexpr milliseconds kWarmUpLook{1000};

absl::Status CheckAtLeastOne(const char* name, std::int64_t value) {
  if (value >= 1) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("%s: expected at least 1, found %d", name, value));
}

absl::Status CheckOptions(const DecodeOptions& options) {
  MASKKV_RETURN_IF_ERROR(CheckAtLeastOne("max_running", options.max_running));
  MASKKV_RETURN_IF_ERROR(CheckAtLeastOne("queue_capacity", options.queue_capacity));
  MASKKV_RETURN_IF_ERROR(CheckAtLeastOne("longest_wait", options.longest_wait.count()));
  MASKKV_RETURN_IF_ERROR(CheckAtLeastOne("stall_limit", options.stall_limit.count()));
  MASKKV_RETURN_IF_ERROR(CheckAtLeastOne("event_queue", options.event_queue));
  MASKKV_RETURN_IF_ERROR(CheckAtLeastOne("max_gen_length", options.max_gen_length));
  return CheckAtLeastOne("max_samples", options.max_samples);
}

StepLoopOptions LoopOptions(const DecodeOptions& options, const services::ModelRuntime& model) {
  StepLoopOptions loop;
  loop.limits.max_running = options.max_running;
  // Requests are bounded in front of the loop, so that what has been prefilled is not refused here.
  loop.limits.capacity = (options.queue_capacity + options.max_running) * options.max_samples;
  loop.limits.longest_wait = options.longest_wait;
  loop.limits.stall_limit = options.stall_limit;
  loop.event_queue = static_cast<std::size_t>(options.event_queue);
  loop.pool = model.pool();
  loop.max_positions = model.max_positions();
  loop.turns = options.turns;
  return loop;
}

RequestLimits LimitsOf(const DecodeOptions& options, const services::ModelRuntime& model) {
  RequestLimits limits;
  limits.max_gen_length = options.max_gen_length;
  limits.max_samples = options.max_samples;
  limits.has_tokenizer = model.tokenizer() != nullptr;
  limits.stop_ids = model.stop_ids();
  limits.mask_id = model.config().mask_id;
  limits.vocabulary = model.config().vocab_rows;
  return limits;
}

// Calls `tick` now and then until destroyed.
class Ticker {
 public:
  explicit Ticker(std::function<void()> tick)
      : thread_([this, run = std::move(tick)] {
          std::unique_lock lock(mu_);
          while (!stop_.wait_for(lock, kTick, [this] { return stopping_; })) {
            lock.unlock();
            run();
            lock.lock();
          }
        }) {}
  ~Ticker() {
    {
      const std::lock_guard lock(mu_);
      stopping_ = true;
    }
    stop_.notify_all();
    thread_.join();
  }

 private:
  std::mutex mu_;
  std::condition_variable stop_;
  bool stopping_ = false;  // guarded by mu_
  std::thread thread_;     // last: it uses the others
};

}  // namespace

struct DecodeService::Impl final : v1::DecodeService::Service {
  Impl(const DecodeOptions& options, std::shared_ptr<const services::ModelRuntime> the_model,
       std::unique_ptr<services::CacheClient> the_cache, std::optional<TokenTable> the_tokens,
       telemetry::Registry& registry)
      : model(std::move(the_model)),
        metrics(Metrics::Create(registry)),
        cache(std::move(the_cache)),
        tokens(std::move(the_tokens)),
        gate(static_cast<std::size_t>(options.queue_capacity), clock),
        kept(KeptLimits(), clock),
        entries(options.prefill.empty() ? nullptr : services::OpenChannel(options.prefill),
                Mapper()),
        loop(model->weights(), model->tokenizer(), LoopOptions(options, *model), metrics.step,
             clock),
        handler(Parts(options)) {
    if (!options.budget.empty()) watcher = services::PlanWatcher::Start(options.budget, reporter);
    ticker.emplace([this] { Tick(); });
  }

  grpc::Status Generate(grpc::ServerContext* context, const v1::GenerateRequest* request,
                        grpc::ServerWriter<v1::GenerateEvent>* writer) override {
    return services::ToGrpc(handler.Run(
        *context, *request, [&](const v1::GenerateEvent& event) { return writer->Write(event); }));
  }

  EntryMapper Mapper() {
    if (cache == nullptr) return {};
    return [this](const services::Call& call, const arena::Handle& handle) {
      return cache->Map(call, handle, model->fingerprint_digest());
    };
  }

  GenerateParts Parts(const DecodeOptions& options) {
    GenerateParts parts;
    parts.model = model.get();
    parts.loop = &loop;
    parts.entries = &entries;
    parts.gate = &gate;
    parts.kept = &kept;
    parts.tokens = tokens ? &*tokens : nullptr;
    parts.metrics = &metrics;
    parts.clock = &clock;
    parts.limits = LimitsOf(options, *model);
    return parts;
  }

  void Tick() {
    kept.Expire();
    const TimePoint now = clock.Now();
    if (watcher == nullptr || now - reported < kReportPeriod) return;
    const StepLoop::State state = loop.state();
    v1::ReportRequest report;
    report.set_reporter(reporter);
    const auto period = std::chrono::duration_cast<std::chrono::nanoseconds>(now - reported);
    report.mutable_period()->set_seconds(period.count() / 1'000'000'000);
    report.mutable_period()->set_nanos(static_cast<std::int32_t>(period.count() % 1'000'000'000));
    v1::DecodeObservation& decode = *report.mutable_decode();
    decode.set_queue_seconds(std::chrono::duration<double>(state.longest_wait).count());
    decode.set_waiting(state.counts.waiting + state.counts.displaced);
    decode.set_running(state.counts.running);
    watcher->Report(report);
    reported = now;
  }

  // Constant after construction, or thread safe themselves. In the order in which they refer to
  // each other.
  const SteadyClock clock;
  const std::string reporter = absl::StrFormat("decode-%d", ::getpid());
  const std::shared_ptr<const services::ModelRuntime> model;
  const Metrics metrics;
  const std::unique_ptr<services::CacheClient> cache;
  const std::optional<TokenTable> tokens;
  RequestGate gate;
  SharedKeptEntries kept;
  const EntrySource entries;
  StepLoop loop;
  const GenerateHandler handler;
  std::unique_ptr<services::PlanWatcher> watcher;
  TimePoint reported = clock.Now();  // the ticker's
  std::optional<Ticker> ticker;
};

absl::StatusOr<DecodeService> DecodeService::Create(
    const DecodeOptions& options, std::shared_ptr<const services::ModelRuntime> model,
    telemetry::Registry& registry) {
  MASKKV_RETURN_IF_ERROR(CheckOptions(options));
  std::unique_ptr<services::CacheClient> cache;
  if (!options.cache.address.empty()) {
    MASKKV_ASSIGN_OR_RETURN(cache, services::CacheClient::Create(options.cache));
  }
  std::optional<TokenTable> tokens;
  if (!options.token_file.empty()) {
    MASKKV_ASSIGN_OR_RETURN(tokens, TokenTable::Load(options.token_file));
  }
  return DecodeService(std::make_unique<Impl>(options, std::move(model), std::move(cache),
                                              std::move(tokens), registry));
}

DecodeService::DecodeService(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
DecodeService::DecodeService(DecodeService&&) noexcept = default;
DecodeService& DecodeService::operator=(DecodeService&&) noexcept = default;
DecodeService::~DecodeService() = default;

grpc::Service& DecodeService::service() { return *impl_; }

void DecodeService::StopAccepting(milliseconds wait) { impl_->gate.Close(wait); }

absl::Status DecodeService::WarmUp() {
  engine::DecodeRequest request;
  const model::ModelConfig& config = impl_->model->config();
  request.prompt = {config.mask_id == 0 ? 1 : 0};
  request.prompt_tokens = 1;
  request.params.gen_length = request.params.block_length = request.params.steps = 1;
  request.params.stop_ids = impl_->model->stop_ids();
  GroupSpec spec;
  spec.sequences.push_back(std::move(request));
  MASKKV_ASSIGN_OR_RETURN(const std::unique_ptr<SequenceGroup> group,
                          impl_->loop.Submit(std::move(spec)));
  while (!group->done()) {
    const std::optional<SequenceEvent> event = group->Next(kWarmUpLook);
    if (!event) continue;
    if (const auto* end = std::get_if<SequenceEnd>(&event->what)) return end->status;
  }
  return absl::OkStatus();
}

}  // namespace maskkv::decode
