// SPDX-License-Identifier: Apache-2.0
#include "services/common/cache_client.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "core/arena/descriptor_client.h"
#include "core/arena/descriptor_socket.h"
#include "core/arena/layout.h"
#include "core/arena/plane.h"
#include "core/base/error.h"
#include "core/base/status_macros.h"
#include "maskkv/v1/cache.grpc.pb.h"
#include "services/common/handle_proto.h"
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

struct CacheClient::Impl : std::enable_shared_from_this<CacheClient::Impl> {
  struct Held {  // a lease under renewal
    std::shared_ptr<Session> session;
    std::string tenant;
    steady_clock::time_point renew_at;
  };
  struct Release {
    std::shared_ptr<Session> session;
    std::string tenant;
    v1::ReleaseRequest request;
  };

  explicit Impl(const CacheClientOptions& o)
      : options(o), channel(OpenChannel(o.address)), stub(v1::CacheService::NewStub(channel)) {}

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
  void WaitForChannel(const Call& call) const {
    if (channel->GetState(/*try_to_connect=*/true) == GRPC_CHANNEL_READY) return;
    milliseconds wait = kConnectWithin;
    if (call.deadline()) {
      wait = std::min(
          wait, std::chrono::duration_cast<milliseconds>(*call.deadline() - steady_clock::now()));
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
      WaitForChannel(call);
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

  void Start() {
    worker = std::thread([this] { Work(); });
  }

  void Stop() {
    {
      const std::lock_guard lock(work_mu);
      stopping = true;
    }
    work_changed.notify_all();
    if (worker.joinable()) worker.join();
  }

  // Renews leases and releases what was given back.
  void Work() {
    std::unique_lock lock(work_mu);
    for (;;) {
      while (!releases.empty()) {
        const Release release = std::move(releases.front());
        releases.pop_front();
        ++releasing;
        lock.unlock();
        Send(release);
        lock.lock();
        --releasing;
        if (releases.empty()) released.notify_all();
      }
      if (stopping) return;
      const steady_clock::time_point now = steady_clock::now();
      steady_clock::time_point next = now + milliseconds(options.lease_ttl_ms);
      std::vector<std::pair<std::string, Held>> due;
      for (auto& [lease, held] : leases) {
        if (held.renew_at <= now) {
          held.renew_at = now + RenewalPeriod();
          due.emplace_back(lease, held);
        }
        next = std::min(next, held.renew_at);
      }
      if (!due.empty()) {
        lock.unlock();
        for (const auto& [lease, held] : due) Renew(lease, held);
        lock.lock();
        continue;
      }
      work_changed.wait_until(lock, next);
    }
  }

  milliseconds RenewalPeriod() const { return milliseconds(options.lease_ttl_ms / 3); }

  void Send(const Release& release) {
    grpc::ClientContext context;
    PrepareOwn(context, *release.session, release.tenant);
    v1::ReleaseResponse response;
    // A daemon that is gone or restarted has released it already.
    stub->Release(&context, release.request, &response);
  }

  void Renew(const std::string& lease, const Held& held) {
    grpc::ClientContext context;
    PrepareOwn(context, *held.session, held.tenant);
    v1::RenewRequest request;
    request.set_lease_id(lease);
    request.set_ttl_ms(options.lease_ttl_ms);
    v1::RenewResponse response;
    // A mapping outlives its lease: what fails here shows when the entry is asked for again.
    stub->Renew(&context, request, &response);
  }

  void Enqueue(Release release) {
    {
      const std::lock_guard lock(work_mu);
      if (release.request.has_lease_id()) leases.erase(release.request.lease_id());
      releases.push_back(std::move(release));
    }
    work_changed.notify_all();
  }

  const CacheClientOptions options;
  const std::shared_ptr<grpc::Channel> channel;
  const std::unique_ptr<v1::CacheService::Stub> stub;

  std::mutex session_mu;
  std::shared_ptr<Session> session;  // guarded by session_mu

  std::mutex work_mu;
  std::condition_variable work_changed, released;
  std::map<std::string, Held> leases;  // guarded by work_mu, by lease id
  std::deque<Release> releases;        // guarded by work_mu
  int releasing = 0;                   // guarded by work_mu
  bool stopping = false;               // guarded by work_mu
  std::thread worker;
};

namespace {

// A reservation of one session.
template <typename Impl>
class Reservation final : public WritableEntry {
 public:
  Reservation(std::shared_ptr<Impl> client, std::shared_ptr<Session> session, std::string tenant,
              arena::Handle handle)
      : client_(std::move(client)),
        session_(std::move(session)),
        tenant_(std::move(tenant)),
        handle_(std::move(handle)) {}

  ~Reservation() override {
    mapping_.Reset();
    if (sealed_) return;
    v1::ReleaseRequest request;
    ToProto(handle_, *request.mutable_reservation());
    client_->Enqueue({session_, tenant_, std::move(request)});
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
  const std::string tenant_;
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
  auto impl = std::make_shared<Impl>(options);
  impl->Start();
  return std::unique_ptr<CacheClient>(new CacheClient(std::move(impl)));
}

CacheClient::CacheClient(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
CacheClient::~CacheClient() { impl_->Stop(); }

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
  auto entry = std::make_unique<Reservation<Impl>>(impl_, session, call.tenant(),
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
    if (const auto impl = weak.lock()) impl->Enqueue({session, tenant, release});
  };
  arena::LeaseId lease;
  if (response.lease_id().size() != lease.bytes.size()) {
    return MakeError(absl::StatusCode::kInternal, "INTERNAL",
                     "cache manager: expected a lease id of 16 bytes, found another");
  }
  std::memcpy(lease.bytes.data(), response.lease_id().data(), lease.bytes.size());
  {
    const std::lock_guard lock(impl_->work_mu);
    impl_->leases[response.lease_id()] = {session, call.tenant(),
                                          steady_clock::now() + impl_->RenewalPeriod()};
  }
  impl_->work_changed.notify_all();
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

void CacheClient::Flush() {
  std::unique_lock lock(impl_->work_mu);
  impl_->released.wait(lock, [&] { return impl_->releases.empty() && impl_->releasing == 0; });
}

}  // namespace maskkv::services
