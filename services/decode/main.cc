// SPDX-License-Identifier: Apache-2.0
//
// maskkv-decode: flags, model, service, server; then waits for its end.
#include <CLI/CLI.hpp>
#include <array>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "core/arena/layout.h"
#include "core/base/status_macros.h"
#include "core/telemetry/log.h"
#include "core/telemetry/metrics.h"
#include "services/common/lifecycle.h"
#include "services/common/model_runtime.h"
#include "services/common/placement.h"
#include "services/common/server.h"
#include "services/common/turns.h"
#include "services/decode/decode_service.h"

namespace maskkv::decode {
namespace {

struct Flags {
  services::ModelOptions model;
  services::ServerOptions server;
  DecodeOptions decode;
  services::TurnFlags turns;
  std::string dtype = "f32";
  std::string metrics_listen = "127.0.0.1:0";
  std::string log_level = "info";
  std::int64_t longest_wait_ms = 60'000, stall_limit_ms = 30'000, drain_ms = 30'000;
};

constexpr std::int64_t kMaxCount = 1'000'000, kMaxMs = 3'600'000;

void DeclareModel(CLI::App& app, Flags& flags) {
  app.add_option("--model", flags.model.directory, "checkpoint directory")->required();
  app.add_option("--dtype", flags.dtype, "of weights and matrix products")
      ->check(CLI::IsMember({"f32", "bf16", "int8"}))
      ->capture_default_str();
  app.add_option("--weights-cache", flags.model.weights_cache,
                 "folder of packed weights that processes share; none: each has its own");
  app.add_option("--threads", flags.model.placement.threads,
                 "of the step loop; 0: one for each of --cpus, or for each CPU that may be used")
      ->check(CLI::Range(0, 4096));
  flags.model.placement.Declare(app);
  app.add_option(
         "--max-positions", flags.model.max_positions,
         "most tokens of prompt and answer; 0: 135168, or the checkpoint's length if it is more")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 24));
}

void DeclareServer(CLI::App& app, Flags& flags) {
  app.add_option("--listen", flags.server.listen,
                 "addresses of the gRPC server: HOST:PORT, unix:PATH; port 0: any")
      ->capture_default_str();
  app.add_flag("--allow-plaintext", flags.server.allow_plaintext,
               "listen beyond this machine without encryption");
  app.add_option("--metrics-listen", flags.metrics_listen, "HOST:PORT of /metrics")
      ->capture_default_str();
  app.add_option("--prefill", flags.decode.prefill, "address of the prefill service")->required();
  app.add_option("--cache", flags.decode.cache.address, "address of the cache manager")->required();
  app.add_option("--cache-socket", flags.decode.cache.socket, "its unix socket")->required();
  app.add_option("--budget", flags.decode.budget, "address of the budget controller, for reports");
  app.add_option("--token-file", flags.decode.token_file,
                 "lines `TOKEN TENANT`: callers need one of the tokens");
  app.add_option("--drain-ms", flags.drain_ms, "for streams under way at SIGTERM")
      ->check(CLI::Range(std::int64_t{0}, kMaxMs))
      ->capture_default_str();
  app.add_option("--log-level", flags.log_level)
      ->check(CLI::IsMember({"debug", "info", "warning", "error"}))
      ->capture_default_str();
}

void DeclareLimits(CLI::App& app, Flags& flags) {
  const CLI::Range count(std::int64_t{1}, kMaxCount), ms(std::int64_t{1}, kMaxMs);
  app.add_option("--max-running", flags.decode.max_running, "sequences in a batch")
      ->check(count)
      ->capture_default_str();
  app.add_option("--queue-capacity", flags.decode.queue_capacity,
                 "requests between arrival and their first step; further ones are refused")
      ->check(count)
      ->capture_default_str();
  app.add_option("--longest-wait-ms", flags.longest_wait_ms, "of a sequence for a place")
      ->check(ms)
      ->capture_default_str();
  app.add_option("--stall-limit-ms", flags.stall_limit_ms,
                 "a reader that takes no event for so long is ended")
      ->check(ms)
      ->capture_default_str();
  app.add_option("--event-queue", flags.decode.event_queue,
                 "events of a sequence that wait to be read")
      ->check(count)
      ->capture_default_str();
  app.add_option("--max-gen-length", flags.decode.max_gen_length, "longest answer")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 24))
      ->capture_default_str();
  flags.turns.Declare(app, schedule::Side::kStep);
  app.add_option("--max-samples", flags.decode.max_samples, "of one request")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
}

absl::Status Serve(Flags& flags) {
  telemetry::LogLevel level = telemetry::LogLevel::kInfo;
  telemetry::ParseLogLevel(flags.log_level, level);
  telemetry::ConfigureLog("decode", level);
  flags.model.dtype = kernels::DTypeNamed(flags.dtype);
  flags.model.load_profile = false;
  flags.decode.longest_wait = std::chrono::milliseconds(flags.longest_wait_ms);
  flags.decode.stall_limit = std::chrono::milliseconds(flags.stall_limit_ms);

  MASKKV_ASSIGN_OR_RETURN(flags.decode.turns, flags.turns.Open(schedule::Side::kStep));
  MASKKV_ASSIGN_OR_RETURN(const std::shared_ptr<const services::ModelRuntime> model,
                          services::ModelRuntime::Load(flags.model));
  services::LeaveCpusTo(model->pool());
  telemetry::Registry registry;
  registry.SetConfigInfo(model->name(), model->fingerprint(), arena::LayoutHashText(),
                         std::string(kernels::Name(model->kv_dtype())));
  MASKKV_ASSIGN_OR_RETURN(const std::unique_ptr<telemetry::Exposer> exposer,
                          telemetry::Exposer::Start(flags.metrics_listen, registry));
  MASKKV_ASSIGN_OR_RETURN(DecodeService service,
                          DecodeService::Create(flags.decode, model, registry));
  const std::array<grpc::Service*, 1> registered{&service.service()};
  MASKKV_ASSIGN_OR_RETURN(services::Server server,
                          services::Server::Start(flags.server, registered, registry));
  MASKKV_RETURN_IF_ERROR(service.WarmUp());
  server.SetReady(true);
  services::PrintReady(server.address(), exposer->address());
  services::WaitForSignal();
  server.Drain(std::chrono::milliseconds(flags.drain_ms));
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  services::BlockSignals();
  CLI::App app("Answers prompts: the front door of maskkv.", "maskkv-decode");
  Flags flags;
  DeclareModel(app, flags);
  DeclareServer(app, flags);
  DeclareLimits(app, flags);
  services::DeclareConfig(app, "decode");
  return services::RunMain(argc, argv, app, [&] { return Serve(flags); });
}

}  // namespace
}  // namespace maskkv::decode

int main(int argc, char** argv) { return maskkv::decode::Main(argc, argv); }
