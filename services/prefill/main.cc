// SPDX-License-Identifier: Apache-2.0
//
// maskkv-prefill: flags, model, service, server; then waits for its end.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <chrono>
#include <memory>
#include <string>

#include "absl/strings/str_format.h"
#include "core/arena/layout.h"
#include "core/base/status_macros.h"
#include "core/telemetry/log.h"
#include "core/telemetry/metrics.h"
#include "services/common/cache_client.h"
#include "services/common/lifecycle.h"
#include "services/common/model_runtime.h"
#include "services/common/placement.h"
#include "services/common/plan_watcher.h"
#include "services/common/server.h"
#include "services/common/turns.h"
#include "services/prefill/prefill_service.h"

namespace maskkv::prefill {
namespace {

struct Flags {
  services::ModelOptions model;
  services::ServerOptions server;
  services::CacheClientOptions cache;
  PrefillServiceOptions prefill;
  services::TurnFlags turns;
  std::string dtype = "f32";
  std::string kv_dtype;
  std::string metrics_listen = "127.0.0.1:0";
  std::string budget;
  std::string log_level = "info";
  std::int64_t longest_wait_ms = 60'000, drain_ms = 30'000;
};

constexpr std::int64_t kMaxCount = 1'000'000, kMaxMs = 3'600'000;

void DeclareModel(CLI::App& app, Flags& flags) {
  app.add_option("--model", flags.model.directory, "checkpoint directory")->required();
  app.add_option("--dtype", flags.dtype, "of weights and matrix products")
      ->check(CLI::IsMember({"f32", "bf16", "int8"}))
      ->capture_default_str();
  app.add_option("--kv-dtype", flags.kv_dtype,
                 "of cached pairs, where a request says nothing [--dtype]")
      ->check(CLI::IsMember({"f32", "bf16", "int8"}));
  app.add_option("--weights-cache", flags.model.weights_cache,
                 "folder of packed weights that processes share; none: each has its own");
  app.add_option("--threads", flags.model.placement.threads,
                 "of the forward; 0: one for each of --cpus, or for each CPU that may be used")
      ->check(CLI::Range(0, 1024));
  flags.model.placement.Declare(app);
  app.add_option(
         "--max-positions", flags.model.max_positions,
         "most tokens of prompt and answer; 0: 135168, or the checkpoint's length if it is more")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 24));
  app.add_option("--profile", flags.model.profile,
                 "importance profile [maskkv_profile.json in the model]");
}

void DeclareServer(CLI::App& app, Flags& flags) {
  app.add_option("--listen", flags.server.listen,
                 "addresses of the gRPC server: HOST:PORT, unix:PATH; port 0: any")
      ->capture_default_str();
  app.add_flag("--allow-plaintext", flags.server.allow_plaintext,
               "listen beyond this machine without encryption");
  app.add_option("--metrics-listen", flags.metrics_listen, "HOST:PORT of /metrics")
      ->capture_default_str();
  app.add_option("--cache", flags.cache.address, "address of the cache manager")->required();
  app.add_option("--cache-socket", flags.cache.socket, "its unix socket")->required();
  app.add_option("--budget", flags.budget,
                 "address of the budget controller; without one the profile decides");
  app.add_option("--drain-ms", flags.drain_ms, "for prefills under way at SIGTERM")
      ->check(CLI::Range(std::int64_t{0}, kMaxMs))
      ->capture_default_str();
  app.add_option("--log-level", flags.log_level)
      ->check(CLI::IsMember({"debug", "info", "warning", "error"}))
      ->capture_default_str();
}

void DeclareLimits(CLI::App& app, Flags& flags) {
  app.add_option("--queue-capacity", flags.prefill.queue_capacity,
                 "requests that wait for their forward; further ones are refused")
      ->check(CLI::Range(std::int64_t{1}, kMaxCount))
      ->capture_default_str();
  app.add_option("--queue-bytes", flags.prefill.queue_bytes,
                 "working memory of requests that wait or run, as 4GiB; 0: half of what is free")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false));
  flags.turns.Declare(app, schedule::Side::kTile);
  app.add_option("--longest-wait-ms", flags.longest_wait_ms, "of a request for its forward")
      ->check(CLI::Range(std::int64_t{1}, kMaxMs))
      ->capture_default_str();
}

absl::Status Serve(Flags& flags) {
  telemetry::LogLevel level = telemetry::LogLevel::kInfo;
  telemetry::ParseLogLevel(flags.log_level, level);
  telemetry::ConfigureLog("prefill", level);
  flags.model.dtype = kernels::DTypeNamed(flags.dtype);

  PrefillServiceOptions& options = flags.prefill;
  options.longest_wait = std::chrono::milliseconds(flags.longest_wait_ms);
  options.max_message_bytes = static_cast<std::uint64_t>(flags.server.max_message_bytes);
  options.reporter = absl::StrFormat("prefill-%d", ::getpid());
  MASKKV_ASSIGN_OR_RETURN(options.turns, flags.turns.Open(schedule::Side::kTile));
  MASKKV_ASSIGN_OR_RETURN(options.model, services::ModelRuntime::Load(flags.model));
  services::LeaveCpusTo(options.model->pool());
  MASKKV_ASSIGN_OR_RETURN(options.cache, services::CacheClient::Create(flags.cache));
  options.plans = services::PlanWatcher::Start(flags.budget, options.reporter);
  options.kv_dtype = flags.kv_dtype.empty() ? kernels::PairDType(options.model->dtype())
                                            : kernels::DTypeNamed(flags.kv_dtype);
  telemetry::Registry registry;
  registry.SetConfigInfo(options.model->name(), options.model->fingerprint(),
                         arena::LayoutHashText(), std::string(kernels::Name(*options.kv_dtype)));
  options.registry = &registry;
  MASKKV_ASSIGN_OR_RETURN(const std::unique_ptr<telemetry::Exposer> exposer,
                          telemetry::Exposer::Start(flags.metrics_listen, registry));
  MASKKV_ASSIGN_OR_RETURN(PrefillService service, PrefillService::Start(options));
  const std::array<grpc::Service*, 1> registered{&service.service()};
  MASKKV_ASSIGN_OR_RETURN(services::Server server,
                          services::Server::Start(flags.server, registered, registry));
  service.Begin([&] {
    server.SetReady(true);
    services::PrintReady(server.address(), exposer->address());
  });
  services::WaitForSignal();
  service.Stop();
  server.SetReady(false);
  server.Drain(std::chrono::milliseconds(flags.drain_ms));
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  services::BlockSignals();
  CLI::App app("Compresses prompts into the cache manager's memory.", "maskkv-prefill");
  Flags flags;
  DeclareModel(app, flags);
  DeclareServer(app, flags);
  DeclareLimits(app, flags);
  services::DeclareConfig(app, "prefill");
  return services::RunMain(argc, argv, app, [&] { return Serve(flags); });
}

}  // namespace
}  // namespace maskkv::prefill

int main(int argc, char** argv) { return maskkv::prefill::Main(argc, argv); }
