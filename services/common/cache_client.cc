// SPDX-License-Identifier: Apache-2.0
#include "services/common/cache_client.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <utility>

#include "core/arena/descriptor_client.h"
#include "core/arena/descriptor_socket.h"
#include "core/arena/layout.h"
#include "core/arena/plane.h"
#include "core/base/error.h"
#include "core/base/status_macros.h"
#include "maskkv/v1/cache.grpc.pb.h"
#include "services/common/handle_proto.h"
#include "services/common/lease_keeper.h"
#include "services/common/server.h"
#include "services/common/status.h"

namespace maskkv::services {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// For calls that are made for no request: renewals, releases, checks.
constexpr milliseconds kOwnDeadline(2000);
// For sealing, which reads the whole entry.
constexpr milliseconds kSealDeadline(60'000);
// How long a daemon whose socket answers may take to answer calls: just started, or the channel has
// not yet noticed that it is back.
constexpr milliseconds kConnectWithin(2000);

std::string Bytes(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// One session: the connection that it lives on and what it needs for calls.
struct Session {
  std::mutex mu;  // of the connection: one question at a time
  std::unique_ptr<arena::DescriptorClient> connection;
  std::string token;  // as metadata
};

}  // namespace

struct CacheClient::Impl {
  explicit Impl(const CacheClientOptions& o)
      : options(o),
        channel(OpenChannel(o.address)),
        stub(v1::CacheService::NewStub(channel)),
        keeper(milliseconds(o.lease_ttl_ms / 3)) {}

  // The session that is open, or a new one if the daemon ended it.
  absl::StatusOr<std::shared_ptr<Session>> OpenSession() {
    const std::lock_guard lock(session_mu);
    if (session != nullptr) {
      const std::lock_guard connection_lock(session->mu);
      if (session->connection->Alive()) return session;
    }
    auto fresh = std::make_shared<Session>();
    MASKKV_ASSIGN_OR_RETURN(fresh->connection, arena::DescriptorClient::Connect(options.socket));
    fresh->token = Bytes(fresh->connection->token().bytes);
    session = fresh;
    return fresh;
  }

  static void Identify(grpc::ClientContext& context, const Session& session) {
    context.AddMetadata(kSessionKey, session.token);
  }

  static void PrepareOwn(grpc::ClientContext& context, const Session& session,
                         const std::string& tenant, milliseconds deadline = kOwnDeadline) {
    Identify(context, session);
    context.AddMetadata(kTenantKey, tenant);
    context.set_deadline(std::chrono::system_clock::now() + deadline);
  }

  // Waits for the channel rather than trying a call twice: what a lost answer reserved stays.
  void WaitForChannel(std::optional<steady_clock::time_point> deadline) const {
    if (channel->GetState(/*try_to_connect=*/true) == GRPC_CHANNEL_READY) return;
    milliseconds wait = kConnectWithin;
    if (deadline) {
      wait =
          std::min(wait, std::chrono::duration_cast<milliseconds>(*deadline - steady_clock::now()));
    }
    channel->WaitForConnected(std::chrono::system_clock::now() + wait);
  }

  // A call of the daemon for `call`. The daemon may have restarted since the session was opened:
  // then once more with a new session.
  template <typename Request, typename Response>
  absl::Status Ask(const Call& call,
                   grpc::Status (v1::CacheService::Stub::*method)(grpc::ClientContext*,
                                                                  const Request&, Response*),
                   const Request& request, Response& response, std::shared_ptr<Session>& used) {
    absl::Status status;
    for (int attempt = 0; attempt < 2; ++attempt) {
      MASKKV_ASSIGN_OR_RETURN(used, OpenSession());
      WaitForChannel(call.deadline());
      grpc::ClientContext context;
      call.PrepareClient(context);
      // Not the call's own deadline: the answer is due within milliseconds, and what it reserved or
      // leased would be lost with it.
      context.set_deadline(std::chrono::system_clock::now() +
                           milliseconds(options.answer_within_ms));
      Identify(context, *used);
      status = FromGrpc((stub.get()->*method)(&context, request, &response));
      if (ErrorReason(status) != "NO_SESSION") break;
      const std::lock_guard lock(session_mu);
      if (session == used) session.reset();
    }
    const bool silent = absl::IsDeadlineExceeded(status);
    if (silent) {
      // What it may have reserved meanwhile goes with the session.
      const std::lock_guard lock(session_mu);
      if (session == used) session.reset();
    }
    if (silent || (absl::IsUnavailable(status) && ErrorReason(status) == "UNAVAILABLE")) {
      MASKKV_RETURN_IF_ERROR(call.Alive());
      return WithRetryAfter(MakeError(absl::StatusCode::kUnavailable, "CACHE_DOWN",
                                      "cache manager: expected an answer, found none"),
                            milliseconds(100));
    }
    return status;
  }

  // Without waiting for the answer: a daemon that is gone or restarted has released it already.
  void GiveBack(const std::shared_ptr<Session>& used, const std::string& tenant,
                const v1::ReleaseRequest& request) {
    keeper.Release(request.has_lease_id() ? request.lease_id() : "", [=, this] {
      grpc::ClientContext context;
      PrepareOwn(context, *used, tenant);
      v1::ReleaseResponse response;
      stub->Release(&context, request, &response);
    });
  }

  void KeepLease(const std::shared_ptr<Session>& used, const std::string& tenant,
                 const std::string& lease) {
    keeper.Keep(lease, [=, this] {
      grpc::ClientContext context;
      PrepareOwn(context, *used, tenant);
      v1::RenewRequest request;
      request.set_lease_id(lease);
      request.set_ttl_ms(options.lease_ttl_ms);
      v1::RenewResponse response;
      // A mapping outlives its lease: what fails here shows when the entry is asked for again.
      stub->Renew(&context, request, &response);
    });
  }

  const CacheClientOptions options;
  const std::shared_ptr<grpc::Channel> channel;
  const std::unique_ptr<v1::CacheService::Stub> stub;

  std::mutex session_mu;
  std::shared_ptr<Session> session;  // guarded by session_mu

  LeaseKeeper keeper;  // last: its thread uses the above
};

namespace {

// A reservation of one session.
template <typename Impl>
class Reservation final : public WritableEntry {
 public:
  Reservation(std::shared_ptr<Impl> client, std::shared_ptr<Session> session, const Call& call,
              arena::Handle handle)
      : client_(std::move(client)),
        session_(std::move(session)),
        tenant_(call.tenant()),
        log_id_(call.log_id()),
        handle_(std::move(handle)) {}

  ~Reservation() override {
    mapping_.Reset();
    if (sealed_) return;
    v1::ReleaseRequest request;
    ToProto(handle_, *request.mutable_reservation());
    client_->GiveBack(session_, tenant_, request);
  }

  absl::Status Map() {
    absl::StatusOr<arena::DescriptorClient::Received> received = [&] {
      const std::lock_guard lock(session_->mu);
      return session_->connection->WriteDescriptor(handle_.entry_id, handle_.nonce);
    }();
    MASKKV_RETURN_IF_ERROR(received.status());
    MASKKV_ASSIGN_OR_RETURN(
        mapping_, arena::MapDescriptor(received->fd.get(), received->bytes, arena::Access::kWrite));
    return absl::OkStatus();
  }

  const arena::Handle& handle() const override { return handle_; }
  std::span<std::byte> memory() override { return mapping_.memory(); }

  absl::StatusOr<arena::Handle> Seal(std::uint64_t used_bytes) override {
    mapping_.Reset();
    grpc::ClientContext context;
    Impl::PrepareOwn(context, *session_, tenant_, kSealDeadline);
    context.AddMetadata(kRequestIdKey, log_id_);
    v1::SealRequest request;
    ToProto(handle_, *request.mutable_handle());
    request.set_used_bytes(used_bytes);
    v1::SealResponse response;
    MASKKV_RETURN_IF_ERROR(FromGrpc(client_->stub->Seal(&context, request, &response)));
    sealed_ = true;
    return FromProto(response.handle());
  }

 private:
  const std::shared_ptr<Impl> client_;
  const std::shared_ptr<Session> session_;
  const std::string tenant_, log_id_;
  const arena::Handle handle_;
  arena::Mapping mapping_;
  bool sealed_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CacheClient>> CacheClient::Create(
    const CacheClientOptions& options) {
  MASKKV_RETURN_IF_ERROR(arena::SocketAddress(options.socket).status());
  if (options.address.empty()) {
    return MakeError(absl::StatusCode::kInvalidArgument, "BAD_ADDRESS",
                     "cache: expected the address of a cache manager, found none");
  }
  return std::unique_ptr<CacheClient>(new CacheClient(std::make_shared<Impl>(options)));
}

CacheClient::CacheClient(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
CacheClient::~CacheClient() { impl_->keeper.Stop(); }

absl::StatusOr<std::variant<std::unique_ptr<WritableEntry>, CachedHandle>> CacheClient::Reserve(
    const Call& call, std::optional<arena::Digest> key, std::uint64_t max_bytes,
    bool ignore_cached) {
  v1::ReserveRequest request;
  if (key) request.set_key(Bytes(*key));
  request.set_max_bytes(max_bytes);
  request.set_ignore_cached(ignore_cached);
  v1::ReserveResponse response;
  std::shared_ptr<Session> session;
  MASKKV_RETURN_IF_ERROR(
      impl_->Ask(call, &v1::CacheService::Stub::Reserve, request, response, session));
  if (response.has_cached()) {
    return CachedHandle{FromProto(response.cached().handle()), response.cached().bytes()};
  }
  auto entry = std::make_unique<Reservation<Impl>>(impl_, session, call,
                                                   FromProto(response.reservation().handle()));
  MASKKV_RETURN_IF_ERROR(entry->Map());
  return std::unique_ptr<WritableEntry>(std::move(entry));
}

absl::StatusOr<std::shared_ptr<const arena::MappedEntry>> CacheClient::Map(
    const Call& call, const arena::Handle& handle, const arena::Digest& model_fingerprint) {
  v1::LeaseRequest request;
  ToProto(handle, *request.mutable_handle());
  request.set_ttl_ms(impl_->options.lease_ttl_ms);
  v1::LeaseResponse response;
  std::shared_ptr<Session> session;
  MASKKV_RETURN_IF_ERROR(
      impl_->Ask(call, &v1::CacheService::Stub::Lease, request, response, session));
  v1::ReleaseRequest release;
  release.set_lease_id(response.lease_id());
  // Runs when the last reference goes, or here if mapping fails. The client may be gone by then:
  // with it the session ends, which releases everything.
  const auto give_back = [weak = std::weak_ptr<Impl>(impl_), session, tenant = call.tenant(),
                          release] {
    if (const auto impl = weak.lock()) impl->GiveBack(session, tenant, release);
  };
  arena::LeaseId lease;
  if (response.lease_id().size() != lease.bytes.size()) {
    return MakeError(absl::StatusCode::kInternal, "INTERNAL",
                     "cache manager: expected a lease id of 16 bytes, found another");
  }
  std::memcpy(lease.bytes.data(), response.lease_id().data(), lease.bytes.size());
  impl_->KeepLease(session, call.tenant(), response.lease_id());
  absl::StatusOr<arena::DescriptorClient::Received> received = [&] {
    const std::lock_guard lock(session->mu);
    return session->connection->ReadDescriptor(lease);
  }();
  if (!received.ok()) {
    give_back();
    return received.status();
  }
  arena::EntryExpectation expectation;
  expectation.epoch = handle.epoch;
  expectation.entry_id = handle.entry_id;
  expectation.bytes = received->bytes;
  expectation.model_fingerprint = model_fingerprint;
  expectation.verify_checksums = impl_->options.verify_checksums;
  auto mapped = arena::MappedEntry::Map(std::move(received->fd), expectation, give_back);
  if (!mapped.ok()) give_back();
  return mapped;
}

absl::Status CacheClient::Check() {
  MASKKV_RETURN_IF_ERROR(impl_->OpenSession().status());
  impl_->WaitForChannel(std::nullopt);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kOwnDeadline);
  v1::StatResponse response;
  const absl::Status status = FromGrpc(impl_->stub->Stat(&context, v1::StatRequest(), &response));
  if (!status.ok()) {
    return MakeError(absl::StatusCode::kUnavailable, "CACHE_DOWN",
                     "cache manager: expected an answer, found none");
  }
  if (response.layout() != arena::LayoutHashText()) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "LAYOUT_MISMATCH",
                     "cache manager: expected this build's layout, found another");
  }
  return absl::OkStatus();
}

void CacheClient::Flush() { impl_->keeper.Flush(); }

}  // namespace maskkv::services
