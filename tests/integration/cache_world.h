// SPDX-License-Identifier: Apache-2.0
//
// A cache manager on a real gRPC server and a real descriptor socket in this process, at addresses
// that stay the same over restarts; clients of it as services use them (CacheClient), and peers
// that send whatever a test wants.
#ifndef MASKKV_TESTS_INTEGRATION_CACHE_WORLD_H_
#define MASKKV_TESTS_INTEGRATION_CACHE_WORLD_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/server_context.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "core/arena/descriptor_client.h"
#include "core/arena/plane.h"
#include "core/telemetry/metrics.h"
#include "maskkv/v1/cache.grpc.pb.h"
#include "services/cache/cache_service.h"
#include "services/common/cache_client.h"
#include "services/common/call.h"
#include "services/common/server.h"
#include "tests/support/temp_folder.h"

namespace maskkv::testing {

// Runs `body` on a thread of another user, as the kernel sees it. REQUIRES: this process is root.
void RunAsUser(std::uint32_t uid, const std::function<void()>& body);

// A call of a tenant, as a handler of a service has it.
class TenantCall {
 public:
  explicit TenantCall(const std::string& tenant = "red");
  const services::Call& operator*() const { return *call_; }

 private:
  grpc::ServerContext context_;
  std::optional<services::Call> call_;
};

// One session and the RPCs, without any of CacheClient's care.
class CachePeer {
 public:
  CachePeer(const std::string& address, const std::string& socket, std::string tenant);

  template <typename Request, typename Response>
  absl::Status Ask(grpc::Status (v1::CacheService::Stub::*method)(grpc::ClientContext*,
                                                                  const Request&, Response*),
                   const Request& request, Response* response) {
    grpc::ClientContext context;
    Identify(context);
    return Convert((stub_.get()->*method)(&context, request, response));
  }

  absl::StatusOr<v1::Handle> Reserve(std::uint64_t max_bytes, const std::string& key = "");
  absl::StatusOr<v1::Handle> Seal(const v1::Handle& handle, std::uint64_t used_bytes);
  absl::StatusOr<std::string> Lease(const v1::Handle& handle, std::uint32_t ttl_ms = 0);
  absl::Status Release(const std::string& lease_id);
  absl::Status Drop(const v1::Handle& reservation);
  absl::StatusOr<v1::EvictResponse> Evict(const v1::Handle& handle);
  v1::StatResponse Stat();

  absl::StatusOr<arena::DescriptorClient::Received> WriteDescriptor(const v1::Handle& handle);
  absl::StatusOr<arena::DescriptorClient::Received> ReadDescriptor(const std::string& lease_id);

  // A sealed entry with small content.
  v1::Handle SmallEntry(std::uint64_t seed = 1, const std::string& key = "");

  std::string token;  // sent as the session; "" sends none
  std::string tenant;
  arena::DescriptorClient& connection() { return *connection_; }
  void Disconnect() { connection_.reset(); }

 private:
  void Identify(grpc::ClientContext& context) const;
  static absl::Status Convert(const grpc::Status& status);

  std::unique_ptr<v1::CacheService::Stub> stub_;
  std::unique_ptr<arena::DescriptorClient> connection_;
};

// A user that owns nothing here.
inline constexpr std::uint32_t kStranger = 65534;

class CacheWorld : public ::testing::Test {
 protected:
  void SetUp() override { Start(); }
  void TearDown() override;

  void Start();
  // As a crash: no calls are finished.
  void Stop();

  std::unique_ptr<services::CacheClient> Client(std::uint32_t lease_ttl_ms = 60'000);
  CachePeer Peer(const std::string& tenant = "red") { return {address_, socket_, tenant}; }

  // Writes and seals an entry through a client.
  arena::Handle Publish(services::CacheClient& client, const std::string& tenant = "red",
                        std::optional<arena::Digest> key = {}, std::uint64_t seed = 1);
  arena::CacheManager& manager() { return service_->manager(); }
  // Every entry and session of the others is gone, and an honest peer is served.
  void ExpectIntact();
  double Metric(const std::string& series) const;

  TempFolder folder_;
  const std::string address_ = "unix:" + folder_.File("cached.grpc");
  const std::string socket_ = folder_.File("cached.sock");
  cache::CacheServiceOptions options_;  // for the next Start; 1 MiB of capacity
  std::optional<telemetry::Registry> registry_;

 private:
  std::optional<cache::CacheService> service_;
  std::optional<services::Server> server_;
};

}  // namespace maskkv::testing

#endif  // MASKKV_TESTS_INTEGRATION_CACHE_WORLD_H_
