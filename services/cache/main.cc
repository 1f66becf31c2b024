// SPDX-License-Identifier: Apache-2.0
//
// maskkv-cached: flags, service, server; then waits for its end.
#include <CLI/CLI.hpp>
#include <array>
#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/base/status_macros.h"
#include "core/telemetry/log.h"
#include "core/telemetry/metrics.h"
#include "services/cache/cache_service.h"
#include "services/common/lifecycle.h"
#include "services/common/server.h"

namespace maskkv::cache {
namespace {

struct Flags {
  services::ServerOptions server;
  CacheServiceOptions cache;
  std::string budget;
  std::vector<std::string> quotas, uid_tenants;
  std::string metrics_listen = "127.0.0.1:0";
  std::string log_level = "info";
  std::int64_t drain_ms = 5'000;
};

void Declare(CLI::App& app, Flags& flags) {
  const CLI::AsSizeValue bytes(/*kb_is_1000=*/false);
  app.add_option("--listen", flags.server.listen,
                 "addresses of the gRPC server: HOST:PORT, unix:PATH; port 0: any")
      ->capture_default_str();
  app.add_flag("--allow-plaintext", flags.server.allow_plaintext,
               "listen beyond this machine without encryption");
  app.add_option("--metrics-listen", flags.metrics_listen, "HOST:PORT of /metrics")
      ->capture_default_str();
  app.add_option("--socket", flags.cache.socket, "unix socket that descriptors are sent over")
      ->required();
  app.add_option("--capacity-bytes", flags.cache.limits.capacity_bytes,
                 "memory that entries may take, as 4GiB")
      ->required()
      ->transform(bytes);
  app.add_option("--tenant-quota-bytes", flags.cache.limits.quota_bytes,
                 "of it, what one tenant may take; 0: all")
      ->transform(bytes);
  app.add_option("--quota", flags.quotas, "of one tenant: NAME=BYTES, as team-a=1GiB");
  app.add_option("--uid-tenant", flags.uid_tenants,
                 "tenant of a user's processes: UID=NAME; otherwise uid-UID");
  app.add_option("--service-uid", flags.cache.service_uids,
                 "user ids that act for any tenant, as prefill and decode do; our own always may");
  app.add_option("--owner", flags.cache.owner, "name of this cache manager in handles")
      ->capture_default_str();
  app.add_option("--budget", flags.budget, "address of the budget controller to report to");
  app.add_option("--drain-ms", flags.drain_ms, "for calls under way at SIGTERM")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{3'600'000}))
      ->capture_default_str();
  app.add_option("--log-level", flags.log_level)
      ->check(CLI::IsMember({"debug", "info", "warning", "error"}))
      ->capture_default_str();
}

// "LEFT=RIGHT", neither empty.
absl::StatusOr<std::pair<std::string, std::string>> Split(const char* flag,
                                                          const std::string& text) {
  const std::size_t at = text.find('=');
  if (at == 0 || at >= text.size() - 1) {  // npos too
    return absl::InvalidArgumentError(std::string(flag) +
                                      ": expected two parts around '=', found " + text);
  }
  return std::pair(text.substr(0, at), text.substr(at + 1));
}

absl::Status ReadTenants(Flags& flags) {
  for (const std::string& text : flags.quotas) {
    MASKKV_ASSIGN_OR_RETURN(auto quota, Split("--quota", text));
    try {
      CLI::AsSizeValue(/*kb_is_1000=*/false)(quota.second);
    } catch (const CLI::ValidationError& error) {
      return absl::InvalidArgumentError(std::string("--quota: ") + error.what());
    }
    flags.cache.limits.quotas[quota.first] = std::stoull(quota.second);
  }
  for (const std::string& text : flags.uid_tenants) {
    MASKKV_ASSIGN_OR_RETURN(const auto pair, Split("--uid-tenant", text));
    std::uint32_t uid = 0;
    if (!CLI::detail::lexical_cast(pair.first, uid)) {
      return absl::InvalidArgumentError("--uid-tenant: expected a user id, found " + pair.first);
    }
    flags.cache.tenants[uid] = pair.second;
  }
  return absl::OkStatus();
}

absl::Status Serve(Flags& flags) {
  telemetry::LogLevel level = telemetry::LogLevel::kInfo;
  telemetry::ParseLogLevel(flags.log_level, level);
  telemetry::ConfigureLog("cached", level);
  MASKKV_RETURN_IF_ERROR(ReadTenants(flags));
  if (!flags.budget.empty()) {
    flags.cache.controller = services::PlanWatcher::Start(flags.budget, "cached");
  }
  telemetry::Registry registry;
  MASKKV_ASSIGN_OR_RETURN(const std::unique_ptr<telemetry::Exposer> exposer,
                          telemetry::Exposer::Start(flags.metrics_listen, registry));
  MASKKV_ASSIGN_OR_RETURN(CacheService service, CacheService::Start(flags.cache, registry));
  const std::array<grpc::Service*, 1> registered{&service.service()};
  MASKKV_ASSIGN_OR_RETURN(services::Server server,
                          services::Server::Start(flags.server, registered, registry));
  server.SetReady(true);
  services::PrintReady(server.address(), exposer->address());
  services::WaitForSignal();
  server.Drain(std::chrono::milliseconds(flags.drain_ms));
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  services::BlockSignals();
  CLI::App app("Owns the memory of compressed prompt caches.", "maskkv-cached");
  Flags flags;
  Declare(app, flags);
  services::DeclareConfig(app, "cached");
  return services::RunMain(argc, argv, app, [&] { return Serve(flags); });
}

}  // namespace
}  // namespace maskkv::cache

int main(int argc, char** argv) { return maskkv::cache::Main(argc, argv); }
