// SPDX-License-Identifier: Apache-2.0
//
// maskkv serve: cache manager, budget controller, prefill and decode in one process, on one gRPC
// server. They talk to each other as four processes do, over a unix socket in a folder of their
// own; the weights are in memory once.
#include <stdlib.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "core/arena/layout.h"
#include "core/base/status_macros.h"
#include "core/schedule/compute_turns.h"
#include "core/telemetry/log.h"
#include "core/telemetry/metrics.h"
#include "services/budget/budget_service.h"
#include "services/budget/planned_model.h"
#include "services/budget/policy_flags.h"
#include "services/cache/cache_service.h"
#include "services/common/cache_client.h"
#include "services/common/lifecycle.h"
#include "services/common/model_runtime.h"
#include "services/common/server.h"
#include "services/common/turns.h"
#include "services/decode/decode_service.h"
#include "services/maskkv/command.h"
#include "services/maskkv/common_flags.h"
#include "services/maskkv/flag_checks.h"
#include "services/prefill/prefill_service.h"

namespace maskkv::cli {
namespace {

constexpr const char* kServeExamples = R"(Examples:
  maskkv serve --model models/tiny-llada --listen 127.0.0.1:50051 --metrics-listen 127.0.0.1:9400
  maskkv serve --model DIR --capacity-bytes 8GiB --budget 256 --state budget.json)";

// Where the services of one process meet: gone with it.
class MeetingPlace {
 public:
  static absl::StatusOr<MeetingPlace> Make() {
    std::string name = (std::filesystem::temp_directory_path() / "maskkv-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) {
      return absl::UnavailableError(name + ": expected to make a folder, found no way to");
    }
    return MeetingPlace(name);
  }
  MeetingPlace(MeetingPlace&& other) noexcept : folder_(std::exchange(other.folder_, "")) {}
  MeetingPlace& operator=(MeetingPlace&&) = delete;
  ~MeetingPlace() {
    std::error_code ignored;
    if (!folder_.empty()) std::filesystem::remove_all(folder_, ignored);
  }

  std::string grpc() const { return "unix:" + folder_ + "/grpc"; }
  std::string descriptors() const { return folder_ + "/descriptors"; }

 private:
  explicit MeetingPlace(std::string folder) : folder_(std::move(folder)) {}
  std::string folder_;
};

class ServeCommand final : public Command {
 public:
  explicit ServeCommand(CLI::App& app) {
    CLI::App* sub = app.add_subcommand("serve", "Run all services in this process");
    sub->footer(std::string(kServeExamples) + "\n\n" + kExitCodesHelp);
    model_.Declare(*sub);
    sub->add_option(
           "--max-positions", max_positions_,
           "Prompt and answer together; 0 is 135168, or the checkpoint's length if it is more")
        ->check(IntegerIn(0, 1 << 24))
        ->capture_default_str();
    sub->add_option("--listen", server_.listen, "Addresses of the gRPC server; port 0 is any")
        ->capture_default_str();
    sub->add_flag("--allow-plaintext", server_.allow_plaintext,
                  "Listen beyond this machine without encryption");
    sub->add_option("--metrics-listen", metrics_listen_, "HOST:PORT of /metrics")
        ->capture_default_str();
    sub->add_option("--capacity-bytes", cache_.limits.capacity_bytes, "Memory of prompt caches")
        ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false))
        ->default_str("1GiB");
    sub->add_option("--max-running", decode_.max_running, "Sequences in a batch")
        ->check(IntegerIn(1, 1 << 16))
        ->capture_default_str();
    sub->add_option("--queue-capacity", decode_.queue_capacity, "Requests that wait")
        ->check(IntegerIn(1, 1 << 16))
        ->capture_default_str();
    services::DeclarePrefillShare(*sub, prefill_share_);
    sub->add_flag("--no-turns", no_turns_,
                  "Let prefill and decode compute side by side, instead of steps first");
    sub->add_option("--token-file", decode_.token_file, "Lines `TOKEN TENANT`: callers need one");
    sub->add_option("--state", budget_.keeper.state_file, "File that keeps policy and plan");
    sub->add_option("--audit", budget_.keeper.audit_file, "File for changes of the policy");
    sub->add_option("--drain-ms", drain_ms_, "For streams under way at SIGTERM")
        ->check(IntegerIn(0, 3'600'000))
        ->capture_default_str();
    sub->add_option("--log-level", log_level_)
        ->check(OneOf({"debug", "info", "warning", "error"}))
        ->capture_default_str();
    policy_.Declare(*sub);
  }

  absl::Status Run() override {
    services::BlockSignals();
    telemetry::LogLevel level = telemetry::LogLevel::kWarning;
    telemetry::ParseLogLevel(log_level_, level);
    telemetry::ConfigureLog("serve", level);
    services::ModelOptions model_options;
    model_options.directory = model_.model;
    model_options.dtype = model_.compute();
    model_options.placement = model_.placement;
    model_options.weights_cache = model_.weights_cache;
    model_options.max_positions = max_positions_;
    MASKKV_ASSIGN_OR_RETURN(const std::shared_ptr<const services::ModelRuntime> model,
                            services::ModelRuntime::Load(model_options));
    services::LeaveCpusTo(model->pool());
    MASKKV_ASSIGN_OR_RETURN(const MeetingPlace place, MeetingPlace::Make());
    server_.listen.push_back(place.grpc());
    telemetry::Registry registry;
    registry.SetConfigInfo(model->name(), model->fingerprint(), arena::LayoutHashText(),
                           std::string(kernels::Name(model_.pairs())));
    MASKKV_ASSIGN_OR_RETURN(const std::unique_ptr<telemetry::Exposer> exposer,
                            telemetry::Exposer::Start(metrics_listen_, registry));
    return Serve(model, place, *exposer, registry);
  }

 private:
  absl::Status Serve(const std::shared_ptr<const services::ModelRuntime>& model,
                     const MeetingPlace& place, const telemetry::Exposer& exposer,
                     telemetry::Registry& registry) {
    const services::CacheClientOptions client{.address = place.grpc(),
                                              .socket = place.descriptors()};
    MASKKV_ASSIGN_OR_RETURN(budget_.keeper.model,
                            budget_service::LoadPlannedModel(model_.model, ""));
    MASKKV_ASSIGN_OR_RETURN(budget_.keeper.policy,
                            policy_.policy(budget_.keeper.model.fingerprint));
    MASKKV_ASSIGN_OR_RETURN(budget_service::BudgetService budget,
                            budget_service::BudgetService::Start(budget_, registry));

    cache_.socket = place.descriptors();
    cache_.controller = services::PlanWatcher::Start(place.grpc(), "cached");
    MASKKV_ASSIGN_OR_RETURN(cache::CacheService cache,
                            cache::CacheService::Start(cache_, registry));

    prefill::PrefillServiceOptions prefill_options;
    prefill_options.model = model;
    prefill_options.kv_dtype = model_.pairs();
    MASKKV_ASSIGN_OR_RETURN(prefill_options.cache, services::CacheClient::Create(client));
    prefill_options.plans = services::PlanWatcher::Start(place.grpc(), "prefill");
    prefill_options.registry = &registry;
    if (!no_turns_) {
      decode_.turns = prefill_options.turns =
          std::make_shared<schedule::ComputeTurns>(prefill_share_, clock_);
    }
    prefill_options.max_message_bytes = static_cast<std::uint64_t>(server_.max_message_bytes);
    MASKKV_ASSIGN_OR_RETURN(prefill::PrefillService prefill,
                            prefill::PrefillService::Start(prefill_options));

    decode_.prefill = place.grpc();
    decode_.cache = client;
    decode_.budget = place.grpc();
    MASKKV_ASSIGN_OR_RETURN(decode::DecodeService decode,
                            decode::DecodeService::Create(decode_, model, registry));

    const std::array<grpc::Service*, 4> registered{&decode.service(), &prefill.service(),
                                                   &cache.service(), &budget.service()};
    MASKKV_ASSIGN_OR_RETURN(services::Server server,
                            services::Server::Start(server_, registered, registry));
    MASKKV_RETURN_IF_ERROR(decode.WarmUp());
    prefill.Begin([&] {
      server.SetReady(true);
      services::PrintReady(server.address(), exposer.address());
    });
    WaitUntilInterrupted();
    prefill.Stop();
    server.SetReady(false);
    // Requests that were accepted still need prefill and cache manager, on this server, for a
    // moment.
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(drain_ms_);
    decode.StopAccepting(std::chrono::milliseconds(drain_ms_));
    budget.BeginDrain();
    server.Drain(std::max(std::chrono::milliseconds(0),
                          std::chrono::duration_cast<std::chrono::milliseconds>(
                              end - std::chrono::steady_clock::now())));
    return absl::OkStatus();
  }

  static cache::CacheServiceOptions DefaultCache() {
    cache::CacheServiceOptions options;
    options.limits.capacity_bytes = std::uint64_t{1} << 30;
    return options;
  }

  const SteadyClock clock_;  // first: what takes turns refers to it
  ModelFlags model_;
  std::int64_t max_positions_ = 0;
  services::ServerOptions server_;
  std::string metrics_listen_ = "127.0.0.1:0";
  cache::CacheServiceOptions cache_ = DefaultCache();
  budget_service::PolicyFlags policy_;
  budget_service::BudgetServiceOptions budget_;
  decode::DecodeOptions decode_;
  double prefill_share_ = schedule::kPrefillShare;
  bool no_turns_ = false;
  std::int64_t drain_ms_ = 30'000;
  std::string log_level_ = "warning";
};

}  // namespace

std::unique_ptr<Command> MakeServeCommand(CLI::App& app) {
  return std::make_unique<ServeCommand>(app);
}

}  // namespace maskkv::cli
