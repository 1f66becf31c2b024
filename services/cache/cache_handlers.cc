// SPDX-License-Identifier: Apache-2.0
#include "services/cache/cache_handlers.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "absl/strings/str_format.h"
#include "core/arena/layout.h"
#include "core/base/error.h"
#include "core/base/status_macros.h"
#include "core/telemetry/log.h"
#include "maskkv/v1/cache.grpc.pb.h"
#include "services/common/call.h"
#include "services/common/handle_proto.h"
#include "services/common/status.h"

namespace maskkv::cache {
namespace {

using arena::Caller;
using grpc::ServerContext;
using services::FromProto;
using services::ToGrpc;
using services::ToProto;

constexpr int kDefaultListed = 100;
constexpr int kMostListed = 1000;

// N bytes of a field; another length is INVALID_ARGUMENT.
template <typename Id>
absl::StatusOr<Id> ReadBytes(const std::string& bytes, const char* field) {
  Id id{};
  if (bytes.size() != sizeof id) {
    return MakeError(
        absl::StatusCode::kInvalidArgument, "INVALID_ARGUMENT",
        absl::StrFormat("%s: expected %d bytes, found %d", field, sizeof id, bytes.size()),
        {{"field", field}});
  }
  std::memcpy(&id, bytes.data(), sizeof id);
  return id;
}

std::int64_t WholeMilliseconds(Duration duration) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(duration).count();
}

absl::Status Missing(const char* field) {
  return MakeError(absl::StatusCode::kInvalidArgument, "INVALID_ARGUMENT",
                   absl::StrFormat("%s: expected one, found none", field), {{"field", field}});
}

v1::EntryState StateOf(arena::EntryState state) {
  switch (state) {
    case arena::EntryState::kReserved:
    case arena::EntryState::kSealing:
      return v1::ENTRY_STATE_RESERVED;
    case arena::EntryState::kSealed:
      return v1::ENTRY_STATE_SEALED;
    case arena::EntryState::kPending:
      return v1::ENTRY_STATE_PENDING;
  }
  return v1::ENTRY_STATE_UNSPECIFIED;
}

class Handlers final : public v1::CacheService::Service {
 public:
  Handlers(arena::CacheManager& manager, Metrics& metrics) : manager_(manager), metrics_(metrics) {}

  grpc::Status Reserve(ServerContext* context, const v1::ReserveRequest* request,
                       v1::ReserveResponse* response) override {
    return Answer(context, "reserve", [&](const Caller& caller) -> absl::Status {
      std::optional<arena::Digest> key;
      if (!request->key().empty()) {
        MASKKV_ASSIGN_OR_RETURN(key, ReadBytes<arena::Digest>(request->key(), "key"));
      }
      MASKKV_ASSIGN_OR_RETURN(
          const arena::ReserveOutcome outcome,
          manager_.Reserve(caller, key, request->max_bytes(), request->ignore_cached()));
      if (outcome.cached) {
        ToProto(outcome.handle, *response->mutable_cached()->mutable_handle());
        response->mutable_cached()->set_bytes(outcome.bytes);
      } else {
        ToProto(outcome.handle, *response->mutable_reservation()->mutable_handle());
        response->mutable_reservation()->set_bytes(outcome.bytes);
      }
      return absl::OkStatus();
    });
  }

  grpc::Status Seal(ServerContext* context, const v1::SealRequest* request,
                    v1::SealResponse* response) override {
    return Answer(context, "seal", [&](const Caller& caller) -> absl::Status {
      const auto sealed =
          manager_.Seal(caller, FromProto(request->handle()), request->used_bytes());
      if (sealed.status().code() == absl::StatusCode::kDataLoss) {
        const std::string reason = ErrorReason(sealed.status());
        metrics_.CountIntegrityFailure(reason);
        telemetry::Log(telemetry::LogLevel::kError, "entry_refused", {{"reason", reason}});
      }
      MASKKV_RETURN_IF_ERROR(sealed.status());
      ToProto(sealed->handle, *response->mutable_handle());
      response->set_bytes(sealed->bytes);
      return absl::OkStatus();
    });
  }

  grpc::Status Lease(ServerContext* context, const v1::LeaseRequest* request,
                     v1::LeaseResponse* response) override {
    return Answer(context, "lease", [&](const Caller& caller) -> absl::Status {
      MASKKV_ASSIGN_OR_RETURN(const arena::LeaseGrant grant,
                              manager_.Lease(caller, FromProto(request->handle()),
                                             std::chrono::milliseconds(request->ttl_ms())));
      response->set_lease_id(grant.id.bytes.data(), grant.id.bytes.size());
      response->set_bytes(grant.bytes);
      response->set_ttl_ms(static_cast<std::uint32_t>(WholeMilliseconds(grant.ttl)));
      return absl::OkStatus();
    });
  }

  grpc::Status Renew(ServerContext* context, const v1::RenewRequest* request,
                     v1::RenewResponse* response) override {
    return Answer(context, "", [&](const Caller& caller) -> absl::Status {
      MASKKV_ASSIGN_OR_RETURN(const auto lease,
                              ReadBytes<arena::LeaseId>(request->lease_id(), "lease_id"));
      MASKKV_ASSIGN_OR_RETURN(
          const Duration ttl,
          manager_.Renew(caller, lease, std::chrono::milliseconds(request->ttl_ms())));
      response->set_ttl_ms(static_cast<std::uint32_t>(WholeMilliseconds(ttl)));
      return absl::OkStatus();
    });
  }

  grpc::Status Release(ServerContext* context, const v1::ReleaseRequest* request,
                       v1::ReleaseResponse* /*response*/) override {
    return Answer(context, "", [&](const Caller& caller) -> absl::Status {
      if (request->has_reservation()) {
        return manager_.Drop(caller, FromProto(request->reservation()));
      }
      if (!request->has_lease_id()) return Missing("what");
      MASKKV_ASSIGN_OR_RETURN(const auto lease,
                              ReadBytes<arena::LeaseId>(request->lease_id(), "lease_id"));
      return manager_.Release(caller, lease);
    });
  }

  grpc::Status Evict(ServerContext* context, const v1::EvictRequest* request,
                     v1::EvictResponse* response) override {
    return Answer(context, "", [&](const Caller& caller) -> absl::Status {
      arena::EvictOutcome outcome;
      if (request->all()) {
        outcome = manager_.EvictAll(caller);
      } else if (request->has_handle()) {
        MASKKV_ASSIGN_OR_RETURN(outcome, manager_.Evict(caller, FromProto(request->handle())));
      } else {
        return Missing("what");
      }
      response->set_entries(outcome.entries);
      response->set_freed_bytes(outcome.freed_bytes);
      response->set_pending_bytes(outcome.pending_bytes);
      return absl::OkStatus();
    });
  }

  grpc::Status Stat(ServerContext* /*context*/, const v1::StatRequest* /*request*/,
                    v1::StatResponse* response) override {
    const arena::CacheStat stat = manager_.Stat();
    response->set_epoch(manager_.epoch());
    response->set_capacity_bytes(stat.capacity_bytes);
    response->set_allocated_bytes(stat.allocated_bytes);
    response->set_leased_bytes(stat.leased_bytes);
    response->set_pending_bytes(stat.pending_bytes);
    response->set_reserved_entries(stat.reserved_entries);
    response->set_sealed_entries(stat.sealed_entries);
    response->set_pending_entries(stat.pending_entries);
    response->set_leases(stat.leases);
    response->set_sessions(stat.sessions);
    response->set_layout(arena::LayoutHashText());
    return grpc::Status::OK;
  }

  grpc::Status List(ServerContext* context, const v1::ListRequest* request,
                    v1::ListResponse* response) override {
    return Answer(context, "", [&](const Caller& caller) -> absl::Status {
      const int limit = request->limit() == 0 ? kDefaultListed : request->limit();
      if (limit < 1 || limit > kMostListed) {
        return MakeError(
            absl::StatusCode::kInvalidArgument, "INVALID_ARGUMENT",
            absl::StrFormat("limit: expected 0 to %d, found %d", kMostListed, request->limit()),
            {{"field", "limit"}});
      }
      // One more tells whether there are more.
      std::vector<arena::ListedEntry> entries =
          manager_.List(caller, request->after_entry_id(), static_cast<std::size_t>(limit) + 1);
      response->set_more(entries.size() > static_cast<std::size_t>(limit));
      if (response->more()) entries.pop_back();
      for (const arena::ListedEntry& entry : entries) {
        v1::EntryInfo& info = *response->add_entries();
        ToProto(entry.handle, *info.mutable_handle());
        info.set_state(StateOf(entry.state));
        info.set_bytes(entry.bytes);
        info.set_leases(static_cast<std::int32_t>(entry.leases));
        info.set_idle_ms(static_cast<std::uint64_t>(WholeMilliseconds(entry.idle)));
        info.set_prompt_tokens(entry.facts.prompt_tokens);
        info.set_pairs(entry.facts.pairs);
      }
      return absl::OkStatus();
    });
  }

 private:
  // Authenticates, answers, logs what is done for one request (event: its name, or ""), brings the
  // metrics up to date.
  template <typename Handler>
  grpc::Status Answer(const ServerContext* context, std::string_view event, Handler handler) {
    const absl::StatusOr<services::Call> call = services::Call::Read(*context, "");
    const absl::Status status = [&]() -> absl::Status {
      MASKKV_RETURN_IF_ERROR(call.status());
      const auto& metadata = context->client_metadata();
      const auto session = metadata.find(services::kSessionKey);
      arena::SessionToken token;
      if (session != metadata.end() && session->second.size() == token.bytes.size()) {
        std::memcpy(token.bytes.data(), session->second.data(), token.bytes.size());
      }
      const bool named = metadata.find(services::kTenantKey) != metadata.end();
      MASKKV_ASSIGN_OR_RETURN(const Caller caller,
                              manager_.Authenticate(token, named ? call->tenant() : ""));
      return handler(caller);
    }();
    if (call.ok() && !event.empty()) {
      telemetry::Log(telemetry::LogLevel::kInfo, event,
                     {{"request_id", call->log_id()},
                      {"traceparent", call->trace_parent()},
                      {"code", absl::StatusCodeToString(status.code())}});
    }
    metrics_.Update(manager_.Stat(), manager_.counters());
    return ToGrpc(status);
  }

  arena::CacheManager& manager_;
  Metrics& metrics_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeCacheHandlers(arena::CacheManager& manager, Metrics& metrics) {
  return std::make_unique<Handlers>(manager, metrics);
}

}  // namespace maskkv::cache
