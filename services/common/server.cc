// SPDX-License-Identifier: Apache-2.0
#include "services/common/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/impl/server_builder_option.h>
#include <grpcpp/impl/server_builder_plugin.h>
#include <grpcpp/impl/server_initializer.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "core/base/check.h"
#include "core/base/error.h"
#include "core/base/status_macros.h"
#include "services/common/call_interceptor.h"
#include "services/common/library_logs.h"
#include "services/common/listen_address.h"

namespace maskkv::services {
namespace {

using std::chrono::steady_clock;

constexpr char kReadiness[] = "readiness", kLiveness[] = "liveness";
// Threads that wait for calls and run none.
constexpr int kPollers = 1;

// What is global in the libraries is set once, before the first server.
void SetUpLibrariesOnce() {
  static std::once_flag once;
  std::call_once(once, [] {
    // Debian's Abseil searches for deadlocks at every lock; in a stream's writer that is a good
    // part of its time.
    absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  });
}

// Bounds for peers that open too much, say too little or have gone.
void LimitPeers(grpc::ServerBuilder& builder, const ServerOptions& options) {
  builder.SetMaxReceiveMessageSize(options.max_message_bytes);
  builder.SetMaxSendMessageSize(options.max_message_bytes);
  const std::vector<std::pair<const char*, int>> arguments{
      {GRPC_ARG_ALLOW_REUSEPORT, 0},  // a second server on a port is an error
      {GRPC_ARG_MAX_METADATA_SIZE, 8 << 10},
      {GRPC_ARG_MAX_CONCURRENT_STREAMS, options.max_threads + 16},  // a connection
      {GRPC_ARG_ENABLE_CHANNELZ, 0},
      {GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, 10'000},
      {GRPC_ARG_MAX_CONNECTION_IDLE_MS, 10 * 60'000},
      // A peer that has gone without closing, or is stopped, loses its calls within 30 s.
      {GRPC_ARG_KEEPALIVE_TIME_MS, 20'000},
      {GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000},
      {GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0},  // of ours
      // A peer may ping every 5 s, with or without calls; two pings too many end the connection.
      {GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1},
      {GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5'000},
      {GRPC_ARG_HTTP2_MAX_PING_STRIKES, 2}};
  for (const auto& [name, value] : arguments) builder.AddChannelArgument(name, value);

  grpc::ResourceQuota quota("server");
  quota.SetMaxThreads(options.max_threads + kPollers);
  builder.SetResourceQuota(quota);
  using Sync = grpc::ServerBuilder::SyncServerOption;
  builder.SetSyncServerOption(Sync::NUM_CQS, 1);
  builder.SetSyncServerOption(Sync::MIN_POLLERS, kPollers);
  // No more: whatever happens on a stream (a client has read) wakes a poller, and one of several
  // then wakes the next to take its place.
  builder.SetSyncServerOption(Sync::MAX_POLLERS, kPollers);
}

// Tells the names of the services that a server was built with.
class ServiceNames final : public grpc::ServerBuilderPlugin, public grpc::ServerBuilderOption {
 public:
  explicit ServiceNames(std::vector<std::string>& names) : names_(names) {}

  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    plugins->push_back(std::make_unique<ServiceNames>(names_));
  }

  std::string name() override { return "service_names"; }
  void InitServer(grpc::ServerInitializer*) override {}
  void Finish(grpc::ServerInitializer* initializer) override {
    names_ = *initializer->GetServiceList();
  }
  void ChangeArguments(const std::string&, void*) override {}

 private:
  std::vector<std::string>& names_;
};

// Errors: of ParseListenAddress and CheckFree.
absl::StatusOr<std::vector<ListenAddress>> ParseAll(const ServerOptions& options) {
  std::vector<ListenAddress> addresses;
  for (const std::string& text : options.listen) {
    MASKKV_ASSIGN_OR_RETURN(ListenAddress address,
                            ParseListenAddress(text, options.allow_plaintext));
    MASKKV_RETURN_IF_ERROR(CheckFree(address));
    addresses.push_back(std::move(address));
  }
  if (!addresses.empty()) return addresses;
  return MakeError(absl::StatusCode::kInvalidArgument, "BAD_ADDRESS",
                   "listen addresses: expected at least one, found none");
}

}  // namespace

struct Server::Impl {
  explicit Impl(telemetry::Registry& registry)
      : metrics(registry), ready(registry.ready()), draining(registry.draining()) {}

  void SetHealth(bool serving) {
    for (const std::string& name : health_names) health->SetServingStatus(name, serving);
    ready.Set(serving ? 1 : 0);
  }

  // Constant after Start.
  CallMetrics metrics;
  const telemetry::Gauge ready, draining;
  std::vector<std::string> health_names{"", kReadiness};  // all but liveness
  std::string address;
  int port = 0;
  std::unique_ptr<grpc::Server> server;
  grpc::HealthCheckServiceInterface* health = nullptr;  // of the server

  std::mutex drain_mu;          // held while draining: a second caller waits for the first
  std::mutex mu;                // after drain_mu
  bool draining_began = false;  // guarded by mu
};

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::Server(Server&&) noexcept = default;

Server& Server::operator=(Server&& other) noexcept {
  if (impl_ != nullptr) Drain(std::chrono::milliseconds(0));
  impl_ = std::move(other.impl_);
  return *this;
}

Server::~Server() {
  if (impl_ != nullptr) Drain(std::chrono::milliseconds(0));
}

absl::StatusOr<Server> Server::Start(const ServerOptions& options,
                                     std::span<grpc::Service* const> services,
                                     telemetry::Registry& registry) {
  MASKKV_CHECK(options.max_threads >= 1 && options.max_message_bytes > 0, "server options");
  MASKKV_ASSIGN_OR_RETURN(const std::vector<ListenAddress> addresses, ParseAll(options));
  RouteLibraryLogs();
  SetUpLibrariesOnce();
  auto impl = std::make_unique<Impl>(registry);
  grpc::ServerBuilder builder;
  LimitPeers(builder, options);
  std::vector<int> ports(addresses.size(), 0);
  for (std::size_t i = 0; i < addresses.size(); ++i) {
    builder.AddListeningPort(addresses[i].ToString(), grpc::InsecureServerCredentials(), &ports[i]);
  }
  for (grpc::Service* service : services) builder.RegisterService(service);
  std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> interceptors;
  interceptors.push_back(MakeCallInterceptorFactory(impl->metrics));
  builder.experimental().SetInterceptorCreators(std::move(interceptors));
  std::vector<std::string> names;
  builder.SetOption(std::make_unique<ServiceNames>(names));
  impl->server = builder.BuildAndStart();
  if (impl->server == nullptr) {
    return MakeError(absl::StatusCode::kUnavailable, "ADDRESS_IN_USE",
                     "listen addresses: expected to be free, found one that cannot be bound");
  }

  for (const std::string& name : names) {
    if (name.starts_with("maskkv.")) impl->health_names.push_back(name);
  }
  impl->health = impl->server->GetHealthCheckService();
  MASKKV_CHECK(impl->health != nullptr, "the default health service is enabled");
  impl->SetHealth(false);
  impl->health->SetServingStatus(kLiveness, true);
  impl->address = addresses[0].ToString();
  for (std::size_t i = addresses.size(); i-- > 0;) {
    if (!addresses[i].tcp) continue;
    impl->port = ports[i];
    impl->address = HostPort{addresses[i].tcp->host, ports[i]}.ToString();
  }
  return Server(std::move(impl));
}

int Server::port() const { return impl_->port; }
std::string Server::address() const { return impl_->address; }

void Server::SetReady(bool ready) {
  const std::lock_guard lock(impl_->mu);
  if (!impl_->draining_began) impl_->SetHealth(ready);
}

void Server::Drain(std::chrono::milliseconds deadline) {
  const auto end = steady_clock::now() + deadline;
  const std::lock_guard drain_lock(impl_->drain_mu);
  {
    const std::lock_guard lock(impl_->mu);
    if (std::exchange(impl_->draining_began, true)) return;
    impl_->SetHealth(false);
  }
  impl_->metrics.SetDraining();
  impl_->draining.Set(1);
  impl_->metrics.WaitUntilIdle(end);
  // What is left is cancelled now; Shutdown returns when its handlers have.
  impl_->server->Shutdown(std::chrono::system_clock::now());
  impl_->server->Wait();
}

}  // namespace maskkv::services
