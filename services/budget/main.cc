// SPDX-License-Identifier: Apache-2.0
//
// maskkv-budgetd: flags, model, service, server; then waits for its end.
#include <CLI/CLI.hpp>
#include <array>
#include <chrono>
#include <filesystem>
#include <memory>
#include <string>

#include "core/base/status_macros.h"
#include "core/telemetry/log.h"
#include "core/telemetry/metrics.h"
#include "services/budget/budget_service.h"
#include "services/budget/planned_model.h"
#include "services/budget/policy_flags.h"
#include "services/common/lifecycle.h"
#include "services/common/server.h"

namespace maskkv::budget_service {
namespace {

struct Flags {
  services::ServerOptions server;
  PolicyFlags policy;
  BudgetServiceOptions budget;
  std::string model, profile;
  std::string metrics_listen = "127.0.0.1:0";
  std::string log_level = "info";
  std::int64_t drain_ms = 5'000;
};

void Declare(CLI::App& app, Flags& flags) {
  app.add_option("--listen", flags.server.listen,
                 "addresses of the gRPC server: HOST:PORT, unix:PATH; port 0: any")
      ->capture_default_str();
  app.add_flag("--allow-plaintext", flags.server.allow_plaintext,
               "listen beyond this machine without encryption");
  app.add_option("--metrics-listen", flags.metrics_listen, "HOST:PORT of /metrics")
      ->capture_default_str();
  app.add_option("--model", flags.model, "checkpoint directory that plans are for");
  app.add_option("--profile", flags.profile,
                 "importance profile; default: the checkpoint's, if it has one");
  app.add_option("--state", flags.budget.keeper.state_file,
                 "file that keeps policy, plan and generation over restarts; what it holds wins "
                 "over the policy's flags");
  app.add_option("--audit", flags.budget.keeper.audit_file,
                 "file that a line is appended to for every change of the policy");
  app.add_option("--drain-ms", flags.drain_ms, "for calls under way at SIGTERM")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{3'600'000}))
      ->capture_default_str();
  app.add_option("--log-level", flags.log_level)
      ->check(CLI::IsMember({"debug", "info", "warning", "error"}))
      ->capture_default_str();
  flags.policy.Declare(app);
}

std::string NameOf(const std::string& directory) {
  std::error_code failed;
  const auto path = std::filesystem::weakly_canonical(directory, failed);
  return (failed ? std::filesystem::path(directory) : path).filename().string();
}

absl::Status Serve(Flags& flags) {
  telemetry::LogLevel level = telemetry::LogLevel::kInfo;
  telemetry::ParseLogLevel(flags.log_level, level);
  telemetry::ConfigureLog("budgetd", level);
  KeeperOptions& keeper = flags.budget.keeper;
  MASKKV_ASSIGN_OR_RETURN(keeper.model, LoadPlannedModel(flags.model, flags.profile));
  MASKKV_ASSIGN_OR_RETURN(keeper.policy, flags.policy.policy(keeper.model.fingerprint));

  telemetry::Registry registry;
  registry.SetConfigInfo(flags.model.empty() ? "" : NameOf(flags.model), keeper.model.fingerprint,
                         "", "");
  MASKKV_ASSIGN_OR_RETURN(const std::unique_ptr<telemetry::Exposer> exposer,
                          telemetry::Exposer::Start(flags.metrics_listen, registry));
  MASKKV_ASSIGN_OR_RETURN(BudgetService service, BudgetService::Start(flags.budget, registry));
  const std::array<grpc::Service*, 1> registered{&service.service()};
  MASKKV_ASSIGN_OR_RETURN(services::Server server,
                          services::Server::Start(flags.server, registered, registry));
  server.SetReady(true);
  services::PrintReady(server.address(), exposer->address());
  services::WaitForSignal();
  service.BeginDrain();
  server.Drain(std::chrono::milliseconds(flags.drain_ms));
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  services::BlockSignals();
  CLI::App app("Decides how many pairs prefills keep by default.", "maskkv-budgetd");
  Flags flags;
  Declare(app, flags);
  services::DeclareConfig(app, "budgetd");
  return services::RunMain(argc, argv, app, [&] { return Serve(flags); });
}

}  // namespace
}  // namespace maskkv::budget_service

int main(int argc, char** argv) { return maskkv::budget_service::Main(argc, argv); }
