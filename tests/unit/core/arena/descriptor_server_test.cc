// SPDX-License-Identifier: Apache-2.0
//
// Both ends of the descriptor socket, and peers that do not keep to it.
#include "core/arena/descriptor_server.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "core/arena/descriptor_client.h"
#include "core/arena/layout.h"
#include "core/base/error.h"
#include "tests/support/raw_peer.h"
#include "tests/support/seed.h"
#include "tests/support/small_entry.h"
#include "tests/support/status_matchers.h"
#include "tests/support/wait_until.h"

namespace maskkv::arena {
namespace {

using maskkv::testing::HelloBytes;
using maskkv::testing::IsOk;
using maskkv::testing::kSmallEntryBytes;
using maskkv::testing::OpenDescriptors;
using maskkv::testing::RawPeer;
using maskkv::testing::StatusIs;
using maskkv::testing::WaitUntil;
using ::testing::_;

class DescriptorServerTest : public ::testing::Test {
 protected:
  static CacheLimits Limits() {
    CacheLimits limits;
    limits.capacity_bytes = 8 * kSmallEntryBytes;
    return limits;
  }

  void SetUp() override { Start(); }
  void TearDown() override {
    server_.reset();
    manager_.CheckInvariants();
    EXPECT_EQ(manager_.Stat().sessions, 0);
    EXPECT_EQ(OpenDescriptors(), descriptors_);
    std::filesystem::remove(options_.path);
  }

  void Start() {
    auto server = DescriptorServer::Start(options_, manager_);
    ASSERT_THAT(server, IsOk());
    server_.emplace(*std::move(server));
  }
  std::unique_ptr<DescriptorClient> Connect() {
    auto client = DescriptorClient::Connect(options_.path);
    EXPECT_THAT(client, IsOk());
    return *std::move(client);
  }
  void ExpectIntact() {
    manager_.CheckInvariants();
    const auto client = Connect();
    EXPECT_TRUE(client->Alive());
  }

  ManualClock clock_;
  CacheManager manager_{Limits(), "here", 77, MakeMemfdPlane(), clock_};
  DescriptorServerOptions options_{.path = std::filesystem::path(::testing::TempDir()) /
                                           ("maskkv-descriptors-" + std::to_string(::getpid())),
                                   .max_connections = 12,
                                   .max_connections_of_uid = 8,
                                   .hello_within = std::chrono::hours(1),
                                   .identify = {}};
  const std::ptrdiff_t descriptors_ = OpenDescriptors();
  std::optional<DescriptorServer> server_;
};

TEST_F(DescriptorServerTest, AConnectionIsASessionAndItsEndIsTheSessionsEnd) {
  auto client = Connect();
  EXPECT_EQ(client->epoch(), 77U);
  EXPECT_THAT(manager_.Authenticate(client->token(), ""), IsOk());
  ASSERT_THAT(manager_.Reserve({client->token(), "a"}, {}, 1, false), IsOk());
  client.reset();
  WaitUntil([&] { return manager_.Stat().sessions == 0; });
  EXPECT_EQ(manager_.Stat().allocated_bytes, 0U);
}

TEST_F(DescriptorServerTest, DescriptorsGoToTheirSessionOnly) {
  const auto client = Connect(), other = Connect();
  const Caller caller{client->token(), "a"};
  const auto reserved = manager_.Reserve(caller, {}, kSmallEntryBytes, false);
  const auto [owner, epoch, id, version, nonce] = reserved->handle;
  EXPECT_EQ(ErrorReason(other->WriteDescriptor(id, nonce).status()), "HANDLE_UNKNOWN");
  EXPECT_EQ(ErrorReason(client->WriteDescriptor(id, nonce + 1).status()), "HANDLE_UNKNOWN");
  EXPECT_EQ(ErrorReason(client->WriteDescriptor(id + 1, nonce).status()), "HANDLE_UNKNOWN");
  std::uint64_t used = 0;
  {
    const auto received = client->WriteDescriptor(id, nonce);
    ASSERT_THAT(received, IsOk());
    const auto mapping = MapDescriptor(received->fd.get(), received->bytes, Access::kWrite);
    used = maskkv::testing::WriteSmallEntry(mapping->memory(), reserved->handle);
  }
  const auto sealed = manager_.Seal(caller, reserved->handle, used);
  ASSERT_THAT(sealed, IsOk());
  EXPECT_EQ(ErrorReason(client->WriteDescriptor(id, nonce).status()), "HANDLE_UNKNOWN");
  const LeaseId lease = manager_.Lease(caller, sealed->handle, {})->id;
  LeaseId guessed = lease;
  guessed.bytes[0] ^= std::byte{1};
  EXPECT_EQ(ErrorReason(client->ReadDescriptor(guessed).status()), "LEASE_UNKNOWN");
  EXPECT_EQ(ErrorReason(other->ReadDescriptor(lease).status()), "LEASE_UNKNOWN");
  const auto received = client->ReadDescriptor(lease);
  ASSERT_THAT(received, IsOk());
  EXPECT_EQ(::fcntl(received->fd.get(), F_GETFL) & O_ACCMODE, O_RDONLY);
  EXPECT_NE(::fcntl(received->fd.get(), F_GETFD) & FD_CLOEXEC, 0);
  EXPECT_EQ(manager_.counters().shares_ok, 2U);
  EXPECT_EQ(manager_.counters().shares_denied, 6U);
  manager_.EvictAll(caller);
}

TEST_F(DescriptorServerTest, AnotherLayoutIsRefused) {
  DescriptorRequest hello;
  hello.layout_hash = LayoutHash() + 1;
  RawPeer peer(options_.path);
  peer.Send(Encode(hello));
  const auto reply = DecodeReply(*peer.Receive());
  ASSERT_THAT(reply, IsOk());
  EXPECT_EQ(reply->reason, "LAYOUT_MISMATCH");
  EXPECT_TRUE(peer.Closed());
}

TEST_F(DescriptorServerTest, NothingIsGivenBeforeHelloAndNoSecondHelloIsTaken) {
  RawPeer peer(options_.path);
  DescriptorRequest read;
  read.type = MessageType::kRead;
  peer.Send(Encode(read));
  EXPECT_EQ(DecodeReply(*peer.Receive())->reason, "NO_SESSION");
  peer.Send(HelloBytes());
  EXPECT_EQ(DecodeReply(*peer.Receive())->code, 0U);
  peer.Send(HelloBytes());
  EXPECT_EQ(DecodeReply(*peer.Receive())->reason, "SESSION_OPEN");
  EXPECT_TRUE(peer.Closed());
}

TEST_F(DescriptorServerTest, WhoeverSendsSomethingElseIsDisconnected) {
  const MessageBytes hello = HelloBytes();
  std::vector<std::vector<std::byte>> packets;
  for (const std::size_t size : {0UL, 1UL, 63UL, 65UL, 4096UL, 65536UL}) {
    packets.emplace_back(size);
    std::copy_n(hello.begin(), std::min(size, hello.size()), packets.back().begin());
  }
  for (const std::size_t at : {0UL, 4UL, 6UL, 12UL, 63UL}) {
    packets.emplace_back(hello.begin(), hello.end());
    packets.back()[at] ^= std::byte{0x80};
  }
  for (const auto& packet : packets) {
    RawPeer peer(options_.path);
    peer.Send(packet);
    EXPECT_TRUE(peer.Closed()) << packet.size();
    ExpectIntact();
  }
}

TEST_F(DescriptorServerTest, DescriptorsThatPeersSendAreClosed) {
  for (const std::size_t count : {1UL, 2UL, 16UL, 17UL, 200UL}) {
    RawPeer peer(options_.path);
    peer.Send(HelloBytes(), std::vector<int>(count, 0));
    EXPECT_TRUE(peer.Closed()) << count;
    peer.Close();
    WaitUntil([&] { return OpenDescriptors() == descriptors_ + 2; });  // listener, event
  }
  ExpectIntact();
}

TEST_F(DescriptorServerTest, NoiseDoesNoHarm) {
  std::mt19937_64 random(maskkv::testing::Seed());
  for (int i = 0; i < 300; ++i) {
    RawPeer peer(options_.path);
    if (random() % 2 == 0) peer.Send(HelloBytes());
    for (std::uint64_t n = random() % 4; n > 0; --n) {
      const MessageBytes hello = HelloBytes();
      std::vector<std::byte> packet(hello.begin(), hello.end());
      packet.resize(random() % 3 == 0 ? random() % 200 : packet.size());
      for (std::uint64_t k = random() % 6; k > 0 && !packet.empty(); --k) {
        packet[random() % std::min<std::size_t>(packet.size(), 32)] =
            static_cast<std::byte>(random() % 5);
      }
      peer.Send(packet);
    }
  }
  // Connections that ended a moment ago count against their uid until the server has seen it: who
  // is refused for that comes again.
  for (int i = 0; i < 1000 && !DescriptorClient::Connect(options_.path).ok(); ++i) {
  }
  ExpectIntact();
}

TEST_F(DescriptorServerTest, AFloodOfConnectionsLeavesThoseWhoAreThere) {
  const auto client = Connect();
  {
    std::vector<RawPeer> flood;
    for (int i = 0; i < 500; ++i) flood.emplace_back(options_.path);
    EXPECT_LE(server_->connections(), 8U);
    EXPECT_EQ(ErrorReason(client->ReadDescriptor({}).status()), "LEASE_UNKNOWN");
    int open = 0;
    for (RawPeer& peer : flood) {
      peer.Send(HelloBytes());
      open += peer.Receive().has_value();
    }
    EXPECT_EQ(open, 7);
  }
  WaitUntil([&] { return server_->connections() == 1; });
  ExpectIntact();
}

TEST_F(DescriptorServerTest, OthersLeavePlacesToServices) {
  server_.reset();
  std::atomic<bool> service{false};
  options_.max_connections = 6;
  options_.max_connections_of_uid = 4;
  options_.identify = [&](std::uint32_t uid) { return SessionIdentity{uid, "t", service}; };
  Start();
  std::vector<RawPeer> flood;
  for (int i = 0; i < 20; ++i) flood.emplace_back(options_.path);
  for (RawPeer& peer : flood) peer.Send(HelloBytes());
  int open = 0;
  for (RawPeer& peer : flood) open += peer.Receive().has_value();
  EXPECT_EQ(open, 2);
  service = true;
  ExpectIntact();
}

TEST_F(DescriptorServerTest, WhoSaysNothingIsDisconnected) {
  server_.reset();
  options_.hello_within = std::chrono::milliseconds(1);
  Start();
  RawPeer peer(options_.path);
  EXPECT_TRUE(peer.Closed());
}

TEST_F(DescriptorServerTest, WhoDoesNotReadIsDisconnected) {
  RawPeer peer(options_.path);
  DescriptorRequest read;
  read.type = MessageType::kRead;
  peer.Send(HelloBytes());
  while (peer.Send(Encode(read))) {
  }
  ExpectIntact();
}

TEST_F(DescriptorServerTest, OnlyASocketThatNobodyListensOnIsReplaced) {
  struct stat status {};
  ASSERT_EQ(::stat(options_.path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0660U);
  EXPECT_EQ(ErrorReason(DescriptorServer::Start(options_, manager_).status()), "ADDRESS_IN_USE");
  EXPECT_THAT(Connect(), ::testing::NotNull());

  DescriptorServerOptions other = options_;
  other.path += "-other";
  std::ofstream(other.path) << "precious";
  EXPECT_EQ(ErrorReason(DescriptorServer::Start(other, manager_).status()), "ADDRESS_IN_USE");
  EXPECT_EQ(std::filesystem::file_size(other.path), 8U);
  std::filesystem::remove(other.path);
  {
    // As a daemon that was killed leaves it.
    const UniqueFd dead(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    const auto address = *SocketAddress(other.path);
    ASSERT_EQ(::bind(dead.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  EXPECT_THAT(DescriptorServer::Start(other, manager_), IsOk());
  EXPECT_FALSE(std::filesystem::exists(other.path));
  other.path = options_.path + "/no/folder";
  EXPECT_EQ(ErrorReason(DescriptorServer::Start(other, manager_).status()), "BAD_ADDRESS");
  other.path = std::string(200, 'x');
  EXPECT_THAT(DescriptorServer::Start(other, manager_).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, _));
}

TEST_F(DescriptorServerTest, AClientNoticesThatTheDaemonHasGone) {
  const auto client = Connect();
  EXPECT_TRUE(client->Alive());
  server_.reset();
  EXPECT_FALSE(client->Alive());
  EXPECT_EQ(ErrorReason(client->ReadDescriptor({}).status()), "CACHE_DOWN");
  EXPECT_EQ(ErrorReason(DescriptorClient::Connect(options_.path).status()), "CACHE_DOWN");
}

}  // namespace
}  // namespace maskkv::arena
