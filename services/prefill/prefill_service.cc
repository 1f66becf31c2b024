// SPDX-License-Identifier: Apache-2.0
#include "services/prefill/prefill_service.h"

#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/error.h"
#include "core/telemetry/log.h"
#include "maskkv/v1/prefill.grpc.pb.h"
#include "services/common/call.h"
#include "services/common/memory.h"
#include "services/common/status.h"
#include "services/prefill/prefill_handler.h"

namespace maskkv::prefill {
namespace {

using services::Call;
using services::ToGrpc;
using std::chrono::milliseconds;

// Between two looks at whether the cache manager is there.
constexpr milliseconds kCheckPeriod{250};

HandlerOptions HandlerOptionsOf(const PrefillServiceOptions& options, const Clock& clock) {
  const std::uint64_t bytes =
      options.queue_bytes > 0 ? options.queue_bytes
                              : static_cast<std::uint64_t>(services::AvailableMemoryBytes()) / 2;
  return {.model = options.model,
          .cache = options.cache,
          .plans = options.plans,
          .kv_dtype = options.kv_dtype.value_or(kernels::PairDType(options.model->dtype())),
          .queue = {.places = 1,
                    .capacity = options.queue_capacity,
                    .memory_bytes = bytes,
                    .longest_wait = options.longest_wait},
          .remember = {.remember = options.remember,
                       .max_remembered = static_cast<std::size_t>(options.max_remembered)},
          .max_message_bytes = options.max_message_bytes,
          .turns = options.turns,
          .clock = &clock};
}

// Converts and calls.
class Adapter final : public v1::PrefillService::Service {
 public:
  explicit Adapter(PrefillHandler& handler) : handler_(handler) {}

  grpc::Status Prefill(grpc::ServerContext* context, const v1::PrefillRequest* request,
                       v1::PrefillResponse* response) override {
    const absl::StatusOr<Call> call = Call::Read(*context, request->request_id());
    if (!call.ok()) return ToGrpc(call.status());
    return ToGrpc(handler_.Prefill(*call, *request, *response));
  }

  grpc::Status Explain(grpc::ServerContext* context, const v1::ExplainRequest* request,
                       v1::ExplainResponse* response) override {
    const absl::StatusOr<Call> call = Call::Read(*context, "");
    if (!call.ok()) return ToGrpc(call.status());
    return ToGrpc(handler_.Explain(*call, *request, *response));
  }

  grpc::Status ModelInfo(grpc::ServerContext* context, const v1::ModelInfoRequest*,
                         v1::ModelInfoResponse* response) override {
    const absl::StatusOr<Call> call = Call::Read(*context, "");
    if (!call.ok()) return ToGrpc(call.status());
    handler_.ModelInfo(*response);
    return grpc::Status::OK;
  }

  grpc::Status Tokenize(grpc::ServerContext* context, const v1::TokenizeRequest* request,
                        v1::TokenizeResponse* response) override {
    const absl::StatusOr<Call> call = Call::Read(*context, "");
    if (!call.ok()) return ToGrpc(call.status());
    return ToGrpc(handler_.Tokenize(*request, *response));
  }

  grpc::Status Vocabulary(grpc::ServerContext* context, const v1::VocabularyRequest*,
                          v1::VocabularyResponse* response) override {
    const absl::StatusOr<Call> call = Call::Read(*context, "");
    if (!call.ok()) return ToGrpc(call.status());
    return ToGrpc(handler_.Vocabulary(*response));
  }

 private:
  PrefillHandler& handler_;
};

}  // namespace

struct PrefillService::Impl {
  Impl(const PrefillServiceOptions& all, const Metrics& metrics)
      : options(all), handler(HandlerOptionsOf(all, clock), metrics), adapter(handler) {}
  ~Impl() { Stop(); }

  void Stop() {
    {
      const std::lock_guard lock(mu);
      stopping = true;
    }
    changed.notify_all();
    if (thread.joinable()) thread.join();
  }

  bool Stopping() {
    const std::lock_guard lock(mu);
    return stopping;
  }

  // False when it is time to stop.
  bool Sleep(milliseconds time) {
    std::unique_lock lock(mu);
    return !changed.wait_for(lock, time, [&] { return stopping; });
  }

  void Background(const std::function<void()>& on_ready) {
    bool warm = false, ready = false;
    TimePoint reported = clock.Now();
    std::string problem;
    do {
      if (!ready) {
        absl::Status status = absl::OkStatus();
        if (!warm) {
          status = handler.WarmUp(
              [&] { return Stopping() ? absl::CancelledError("stopping") : absl::OkStatus(); });
          warm = status.ok();
        }
        if (warm) status = options.cache->Check();
        if (Stopping()) return;
        ready = status.ok();
        if (ready) {
          telemetry::Log(telemetry::LogLevel::kInfo, "ready");
          on_ready();
        } else if (const std::string reason = ErrorReason(status); reason != problem) {
          problem = reason;
          telemetry::Log(telemetry::LogLevel::kWarning, "not_ready",
                         {{"reason", reason}, {"message", std::string(status.message())}});
        }
      }
      if (clock.Now() - reported >= options.report_period) {
        reported = clock.Now();
        handler.Report(options.reporter);
      }
    } while (Sleep(ready ? options.report_period : std::min(kCheckPeriod, options.report_period)));
  }

  const PrefillServiceOptions options;
  const SteadyClock clock;
  PrefillHandler handler;
  Adapter adapter;

  std::mutex mu;
  std::condition_variable changed;
  bool stopping = false;  // guarded by mu
  std::thread thread;
};

absl::StatusOr<PrefillService> PrefillService::Start(const PrefillServiceOptions& options) {
  if (options.queue_capacity < 1) {
    return absl::InvalidArgumentError(
        absl::StrFormat("queue capacity: expected at least 1, found %d", options.queue_capacity));
  }
  if (options.longest_wait.count() < 1 || options.report_period.count() < 1) {
    return absl::InvalidArgumentError(
        "longest wait and report period: expected at least 1 ms, found less");
  }
  if (options.max_remembered < 1 || options.remember.count() < 1) {
    return absl::InvalidArgumentError(
        "remembered answers: expected at least one for a second, found less");
  }
  const Metrics metrics =
      options.registry != nullptr ? Metrics::Create(*options.registry) : Metrics{};
  return PrefillService(std::make_unique<Impl>(options, metrics));
}

PrefillService::PrefillService(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
PrefillService::PrefillService(PrefillService&&) noexcept = default;
PrefillService& PrefillService::operator=(PrefillService&&) noexcept = default;
PrefillService::~PrefillService() = default;

grpc::Service& PrefillService::service() { return impl_->adapter; }

void PrefillService::Begin(std::function<void()> on_ready) {
  impl_->thread =
      std::thread([impl = impl_.get(), ready = std::move(on_ready)] { impl->Background(ready); });
}

void PrefillService::Stop() { impl_->Stop(); }

}  // namespace maskkv::prefill
