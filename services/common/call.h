// SPDX-License-Identifier: Apache-2.0
//
// What every service reads of a call, as plain values, and what it passes on to the next service.
// Deadline and cancellation travel with the call: a client call made with PrepareClient inherits
// both.
#ifndef MASKKV_SERVICES_COMMON_CALL_H_
#define MASKKV_SERVICES_COMMON_CALL_H_

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace grpc {
class ServerContext;
class ClientContext;
}  // namespace grpc

namespace maskkv::services {

inline constexpr char kTenantKey[] = "maskkv-tenant";
inline constexpr char kSessionKey[] = "maskkv-session-bin";
inline constexpr char kTraceKey[] = "traceparent";
// Of the request that a call to another service is made for: for its logs.
inline constexpr char kRequestIdKey[] = "maskkv-request-id";
inline constexpr char kDefaultTenant[] = "default";

// Set by our server on calls that arrive while it drains (services/common/server.h); what a peer
// sends under it is removed.
inline constexpr char kDrainingKey[] = "maskkv-draining";

// One call as the server sees it. Refers to the context: lives no longer than the handler.
class Call {
 public:
  // Reads and checks the metadata. request_id: the request's field; empty takes the one that
  // PrepareClient passed on, or makes a random one.
  // Errors: INVALID_ARGUMENT (BAD_METADATA) for a malformed tenant, traceparent is dropped if
  // malformed; INVALID_ARGUMENT (BAD_REQUEST_ID) for a request id that is not 1 to 128 printable
  // ASCII characters; UNAVAILABLE (DRAINING) if the server had begun to drain when the call came.
  static absl::StatusOr<Call> Read(const grpc::ServerContext& context, std::string_view request_id);

  const std::string& tenant() const { return tenant_; }
  const std::string& request_id() const { return request_id_; }
  // For logs: the id of the request that the call is made for, as the service that a client asked
  // has it and as PrepareClient passes it on; request_id() where nothing was passed on.
  const std::string& log_id() const { return log_id_; }
  const std::string& trace_parent() const { return trace_parent_; }  // "" if there was none

  // OK, or CANCELLED or DEADLINE_EXCEEDED: what handlers look at in queues, layers and steps.
  // Thread safe. Costs some 8 us, because a synchronous call is not told of its end and has to ask:
  // once a layer or step, not in inner loops.
  absl::Status Alive() const;

  // Until the deadline; nullopt if the caller set none.
  std::optional<std::chrono::steady_clock::time_point> deadline() const { return deadline_; }

  // Sets tenant, request id, trace and deadline of a call to another service made for this one;
  // `client` was made by grpc::ClientContext::FromServerContext if cancellation is to be passed on.
  void PrepareClient(grpc::ClientContext& client) const;

  // Authenticated elsewhere (a token): replaces the metadata's tenant.
  void set_tenant(std::string tenant) { tenant_ = std::move(tenant); }

 private:
  Call() = default;

  const grpc::ServerContext* context_ = nullptr;
  std::string tenant_, request_id_, log_id_, trace_parent_;
  std::optional<std::chrono::steady_clock::time_point> deadline_;
};

// UNAVAILABLE (DRAINING), to be tried again elsewhere or later.
absl::Status DrainingError();

}  // namespace maskkv::services

#endif  // MASKKV_SERVICES_COMMON_CALL_H_
