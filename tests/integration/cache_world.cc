// SPDX-License-Identifier: Apache-2.0
#include "tests/integration/cache_world.h"

#include <gmock/gmock.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>
#include <variant>

#include "core/base/check.h"
#include "core/base/error.h"
#include "services/common/handle_proto.h"
#include "services/common/status.h"
#include "tests/support/small_entry.h"
#include "tests/support/status_matchers.h"
#include "tests/support/wait_until.h"

namespace maskkv::testing {

using services::CacheClient;
using services::FromGrpc;
using services::FromProto;

void RunAsUser(std::uint32_t uid, const std::function<void()>& body) {
  std::thread([&] {
    // The C library would change the user of every thread; the kernel has one a thread.
    ASSERT_EQ(::syscall(SYS_setgroups, 0, nullptr), 0);
    ASSERT_EQ(::syscall(SYS_setresgid, -1, uid, -1), 0);
    ASSERT_EQ(::syscall(SYS_setresuid, -1, uid, -1), 0);
    body();
  }).join();
}

TenantCall::TenantCall(const std::string& tenant) {
  auto call = services::Call::Read(context_, "test");
  EXPECT_THAT(call, IsOk());
  call_ = *std::move(call);
  call_->set_tenant(tenant);
}

CachePeer::CachePeer(const std::string& address, const std::string& socket, std::string of)
    : tenant(std::move(of)), stub_(v1::CacheService::NewStub(services::OpenChannel(address))) {
  auto connection = arena::DescriptorClient::Connect(socket);
  EXPECT_THAT(connection, IsOk());
  connection_ = *std::move(connection);
  token.assign(reinterpret_cast<const char*>(connection_->token().bytes.data()), 16);
}

void CachePeer::Identify(grpc::ClientContext& context) const {
  if (!token.empty()) context.AddMetadata(services::kSessionKey, token);
  if (!tenant.empty()) context.AddMetadata(services::kTenantKey, tenant);
  context.set_wait_for_ready(true);
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::minutes(1));
}

absl::Status CachePeer::Convert(const grpc::Status& status) { return FromGrpc(status); }

absl::StatusOr<v1::Handle> CachePeer::Reserve(std::uint64_t max_bytes, const std::string& key) {
  v1::ReserveRequest request;
  request.set_max_bytes(max_bytes);
  request.set_key(key);
  v1::ReserveResponse response;
  const absl::Status status = Ask(&v1::CacheService::Stub::Reserve, request, &response);
  if (!status.ok()) return status;
  return response.has_cached() ? response.cached().handle() : response.reservation().handle();
}

absl::StatusOr<v1::Handle> CachePeer::Seal(const v1::Handle& handle, std::uint64_t used_bytes) {
  v1::SealRequest request;
  *request.mutable_handle() = handle;
  request.set_used_bytes(used_bytes);
  v1::SealResponse response;
  const absl::Status status = Ask(&v1::CacheService::Stub::Seal, request, &response);
  if (!status.ok()) return status;
  return response.handle();
}

absl::StatusOr<std::string> CachePeer::Lease(const v1::Handle& handle, std::uint32_t ttl_ms) {
  v1::LeaseRequest request;
  *request.mutable_handle() = handle;
  request.set_ttl_ms(ttl_ms);
  v1::LeaseResponse response;
  const absl::Status status = Ask(&v1::CacheService::Stub::Lease, request, &response);
  if (!status.ok()) return status;
  return response.lease_id();
}

absl::Status CachePeer::Release(const std::string& lease_id) {
  v1::ReleaseRequest request;
  request.set_lease_id(lease_id);
  v1::ReleaseResponse response;
  return Ask(&v1::CacheService::Stub::Release, request, &response);
}

absl::Status CachePeer::Drop(const v1::Handle& reservation) {
  v1::ReleaseRequest request;
  *request.mutable_reservation() = reservation;
  v1::ReleaseResponse response;
  return Ask(&v1::CacheService::Stub::Release, request, &response);
}

absl::StatusOr<v1::EvictResponse> CachePeer::Evict(const v1::Handle& handle) {
  v1::EvictRequest request;
  *request.mutable_handle() = handle;
  v1::EvictResponse response;
  const absl::Status status = Ask(&v1::CacheService::Stub::Evict, request, &response);
  if (!status.ok()) return status;
  return response;
}

v1::StatResponse CachePeer::Stat() {
  v1::StatResponse response;
  EXPECT_THAT(Ask(&v1::CacheService::Stub::Stat, v1::StatRequest(), &response), IsOk());
  return response;
}

absl::StatusOr<arena::DescriptorClient::Received> CachePeer::WriteDescriptor(
    const v1::Handle& handle) {
  return connection_->WriteDescriptor(handle.entry_id(), handle.nonce());
}

absl::StatusOr<arena::DescriptorClient::Received> CachePeer::ReadDescriptor(
    const std::string& lease_id) {
  arena::LeaseId lease;
  MASKKV_CHECK(lease_id.size() == lease.bytes.size(), "a lease id");
  std::memcpy(lease.bytes.data(), lease_id.data(), lease_id.size());
  return connection_->ReadDescriptor(lease);
}

v1::Handle CachePeer::SmallEntry(std::uint64_t seed, const std::string& key) {
  const auto reserved = Reserve(kSmallEntryBytes, key);
  EXPECT_THAT(reserved, IsOk());
  std::uint64_t used = 0;
  {
    const auto received = WriteDescriptor(*reserved);
    EXPECT_THAT(received, IsOk());
    const auto mapping =
        arena::MapDescriptor(received->fd.get(), received->bytes, arena::Access::kWrite);
    EXPECT_THAT(mapping, IsOk());
    used = WriteSmallEntry(mapping->memory(), FromProto(*reserved), seed);
  }
  const auto sealed = Seal(*reserved, used);
  EXPECT_THAT(sealed, IsOk());
  return *sealed;
}

void CacheWorld::Start() {
  if (options_.limits.capacity_bytes == 0) options_.limits.capacity_bytes = 1 << 20;
  options_.socket = socket_;
  registry_.emplace();
  auto service = cache::CacheService::Start(options_, *registry_);
  ASSERT_THAT(service, IsOk());
  service_.emplace(*std::move(service));
  const std::array<grpc::Service*, 1> registered{&service_->service()};
  auto server = services::Server::Start({.listen = {address_}}, registered, *registry_);
  ASSERT_THAT(server, IsOk());
  server_.emplace(*std::move(server));
}

void CacheWorld::Stop() {
  if (server_) server_->Drain(std::chrono::milliseconds(0));
  server_.reset();
  service_.reset();
}

void CacheWorld::TearDown() {
  if (service_) manager().CheckInvariants();
  Stop();
}

std::unique_ptr<CacheClient> CacheWorld::Client(std::uint32_t lease_ttl_ms) {
  services::CacheClientOptions options;
  options.address = address_;
  options.socket = socket_;
  options.lease_ttl_ms = lease_ttl_ms;
  auto client = CacheClient::Create(options);
  EXPECT_THAT(client, IsOk());
  return *std::move(client);
}

arena::Handle CacheWorld::Publish(CacheClient& client, const std::string& tenant,
                                  std::optional<arena::Digest> key, std::uint64_t seed) {
  auto reserved = client.Reserve(*TenantCall(tenant), key, kSmallEntryBytes, false);
  EXPECT_THAT(reserved, IsOk());
  auto* const entry = std::get_if<std::unique_ptr<services::WritableEntry>>(&*reserved);
  MASKKV_CHECK(entry != nullptr, "an entry that was not there");
  const std::uint64_t used = WriteSmallEntry((*entry)->memory(), (*entry)->handle(), seed);
  const auto handle = (*entry)->Seal(used);
  EXPECT_THAT(handle, IsOk());
  return *handle;
}

void CacheWorld::ExpectIntact() {
  WaitUntil([&] { return manager().Stat().sessions == 0; });
  manager().CheckInvariants();
  EXPECT_EQ(manager().Stat().reserved_entries, 0);
  EXPECT_EQ(manager().Stat().pending_entries, 0);
  EXPECT_EQ(manager().Stat().leases, 0);
  {
    CachePeer honest = Peer("honest");
    const v1::Handle handle = honest.SmallEntry();
    const auto lease = honest.Lease(handle);
    ASSERT_THAT(lease, IsOk());
    EXPECT_THAT(honest.ReadDescriptor(*lease), IsOk());
    EXPECT_THAT(honest.Release(*lease), IsOk());
    EXPECT_THAT(honest.Evict(handle), IsOk());
  }
  WaitUntil([&] { return manager().Stat().sessions == 0; });
}

double CacheWorld::Metric(const std::string& series) const {
  const std::string text = "\n" + registry_->Scrape();
  const std::size_t at = text.find("\n" + series + " ");
  return at == std::string::npos ? 0 : std::stod(text.substr(at + series.size() + 2));
}

}  // namespace maskkv::testing
