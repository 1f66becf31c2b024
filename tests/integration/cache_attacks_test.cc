// SPDX-License-Identifier: Apache-2.0
//
// Peers that lie, guess and break rules, over real gRPC and real descriptors: all are refused, and
// the daemon is intact afterwards.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "services/common/handle_proto.h"
#include "tests/integration/cache_world.h"
#include "tests/support/entry_bytes.h"
#include "tests/support/raw_peer.h"
#include "tests/support/seed.h"
#include "tests/support/small_entry.h"
#include "tests/support/status_matchers.h"
#include "tests/support/wait_until.h"

namespace maskkv::testing {
namespace {

using arena::Access;
using arena::MapDescriptor;
using services::FromProto;
using Stub = v1::CacheService::Stub;

class CacheAttacksTest : public CacheWorld {
 protected:
  void TearDown() override {
    ExpectIntact();
    CacheWorld::TearDown();
  }

  static std::string Reason(const absl::Status& status) { return ErrorReason(status); }

  // What every RPC that takes a handle answers.
  static std::vector<absl::Status> Try(CachePeer& peer, const v1::Handle& handle) {
    return {peer.Lease(handle).status(), peer.Seal(handle, 64).status(), peer.Drop(handle),
            peer.Evict(handle).status()};
  }
  static void ExpectAll(const std::vector<absl::Status>& answers, const std::string& reason) {
    for (std::size_t i = 0; i < answers.size(); ++i) {
      EXPECT_EQ(Reason(answers[i]), reason) << i << answers[i];
    }
  }
};

TEST_F(CacheAttacksTest, ForgedStaleAndForeignHandlesAreRefused) {
  CachePeer owner = Peer(), other = Peer("blue");
  const v1::Handle sealed = owner.SmallEntry();
  v1::Handle forged = sealed;
  forged.set_nonce(forged.nonce() + 1);
  ExpectAll(Try(owner, forged), "HANDLE_UNKNOWN");
  forged = sealed;
  forged.set_entry_id(forged.entry_id() + 7);
  ExpectAll(Try(owner, forged), "HANDLE_UNKNOWN");
  forged = sealed;
  forged.set_owner("elsewhere");
  ExpectAll(Try(owner, forged), "HANDLE_UNKNOWN");
  ExpectAll(Try(owner, v1::Handle()), "HANDLE_UNKNOWN");
  forged = sealed;
  forged.set_epoch(forged.epoch() ^ 1);
  ExpectAll(Try(owner, forged), "EPOCH_MOVED");
  forged = sealed;
  forged.set_version(forged.version() + 1);
  ExpectAll(Try(owner, forged), "EPOCH_MOVED");

  // Another tenant's is answered like one that never was, to the word.
  forged = sealed;
  forged.set_entry_id(1 << 30);
  const auto foreign = Try(other, sealed), invented = Try(other, forged);
  ExpectAll(foreign, "HANDLE_UNKNOWN");
  EXPECT_EQ(foreign, invented);

  // So is another's reservation, and one of one's own tenant's by another session.
  const v1::Handle reserved = *owner.Reserve(1);
  CachePeer colleague = Peer();
  ExpectAll(Try(other, reserved), "HANDLE_UNKNOWN");
  EXPECT_EQ(Reason(colleague.Seal(reserved, 64).status()), "HANDLE_UNKNOWN");
  EXPECT_EQ(Reason(colleague.Drop(reserved)), "HANDLE_UNKNOWN");
  EXPECT_EQ(Reason(colleague.WriteDescriptor(reserved).status()), "HANDLE_UNKNOWN");
  EXPECT_THAT(owner.Evict(sealed), IsOk());
}

TEST_F(CacheAttacksTest, LeaseIdsCannotBeGuessedNorUsedByOthers) {
  CachePeer owner = Peer(), colleague = Peer();
  const v1::Handle handle = owner.SmallEntry();
  const std::string lease = *owner.Lease(handle);
  std::mt19937_64 random(Seed());
  const auto refused = [&](CachePeer& peer, const std::string& id) {
    v1::RenewRequest renew;
    renew.set_lease_id(id);
    v1::RenewResponse renewed;
    EXPECT_EQ(Reason(peer.Ask(&Stub::Renew, renew, &renewed)), "LEASE_UNKNOWN");
    EXPECT_EQ(Reason(peer.Release(id)), "LEASE_UNKNOWN");
    EXPECT_EQ(Reason(peer.ReadDescriptor(id).status()), "LEASE_UNKNOWN");
  };
  for (int i = 0; i < 200; ++i) {
    std::string guess = lease;
    guess[random() % guess.size()] ^= static_cast<char>(1 + random() % 255);
    refused(owner, guess);
  }
  refused(owner, std::string(16, '\0'));
  refused(colleague, lease);
  for (const std::size_t size : {0UL, 15UL, 17UL, 1000UL}) {
    EXPECT_EQ(owner.Release(std::string(size, 'x')).code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(owner.Stat().leases(), 1);
  EXPECT_THAT(owner.Release(lease), IsOk());
  EXPECT_THAT(owner.Evict(handle), IsOk());
}

TEST_F(CacheAttacksTest, WithoutASessionNothingIsAnswered) {
  CachePeer peer = Peer();
  const std::string token = peer.token;
  std::string guessed = token;
  guessed[5] ^= 1;
  for (const std::string& wrong :
       {std::string(), std::string("x"), std::string(17, 'x'), std::string(16, '\0'), guessed}) {
    peer.token = wrong;
    ExpectAll(Try(peer, v1::Handle()), "NO_SESSION");
    EXPECT_EQ(Reason(peer.Reserve(1).status()), "NO_SESSION");
    EXPECT_EQ(Reason(peer.Release(std::string(16, 'x'))), "NO_SESSION");
    v1::ListResponse listed;
    EXPECT_EQ(Reason(peer.Ask(&Stub::List, v1::ListRequest(), &listed)), "NO_SESSION");
  }
  peer.token = token;
  EXPECT_THAT(peer.Reserve(1), IsOk());
  peer.Disconnect();
  WaitUntil([&] { return manager().Stat().sessions == 0; });
  EXPECT_EQ(Reason(peer.Reserve(1).status()), "NO_SESSION");
}

// Opened again through /proc with every right there is.
void ExpectImmutable(int descriptor, std::uint64_t bytes) {
  const std::string path = "/proc/self/fd/" + std::to_string(descriptor);
  const UniqueFd again(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  for (const int fd : {descriptor, again.get()}) {
    if (fd < 0) continue;
    errno = 0;
    EXPECT_LT(::pwrite(fd, "x", 1, 0), 0);
    EXPECT_TRUE(errno == EPERM || errno == EBADF) << errno;  // EBADF: opened for reading
    EXPECT_EQ(::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
    EXPECT_TRUE(errno == EPERM || errno == EACCES) << errno;
    EXPECT_NE(::ftruncate(fd, 0), 0);
    EXPECT_NE(::ftruncate(fd, static_cast<off_t>(2 * bytes)), 0);
    EXPECT_NE(::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), 0);
    EXPECT_NE(::fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL), 0);
  }
  if (!again.valid()) return;
  errno = 0;
  EXPECT_LT(::pwrite(again.get(), "x", 1, 0), 0);
  EXPECT_EQ(errno, EPERM);
  // A mapping for reading does not become one for writing.
  void* const mapped = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, again.get(), 0);
  if (mapped == MAP_FAILED) return;  // before Linux 6.7
  EXPECT_NE(::mprotect(mapped, bytes, PROT_READ | PROT_WRITE), 0);
  ::munmap(mapped, bytes);
}

TEST_F(CacheAttacksTest, NobodyWritesASealedEntryThroughAnyDescriptor) {
  CachePeer writer = Peer();
  const v1::Handle reserved = *writer.Reserve(kSmallEntryBytes);
  const auto kept = writer.WriteDescriptor(reserved);  // and never closed
  ASSERT_THAT(kept, IsOk());
  std::uint64_t used = 0;
  {
    const auto mapping = MapDescriptor(kept->fd.get(), kept->bytes, Access::kWrite);
    used = WriteSmallEntry(mapping->memory(), FromProto(reserved));
  }
  const auto handle = writer.Seal(reserved, used);
  ASSERT_THAT(handle, IsOk());
  const std::string lease = *writer.Lease(*handle);
  const auto read = writer.ReadDescriptor(lease);
  ASSERT_THAT(read, IsOk());
  ExpectImmutable(kept->fd.get(), read->bytes);
  ExpectImmutable(read->fd.get(), read->bytes);
  if (::geteuid() == 0) {
    RunAsUser(kStranger, [&] { ExpectImmutable(read->fd.get(), read->bytes); });
  }
  const auto mapping = MapDescriptor(read->fd.get(), read->bytes, Access::kRead);
  arena::EntryExpectation expectation;
  expectation.epoch = handle->epoch();
  expectation.entry_id = handle->entry_id();
  EXPECT_THAT(arena::ValidateEntry(mapping->memory(), expectation), IsOk());
  EXPECT_THAT(writer.Release(lease), IsOk());
  EXPECT_THAT(writer.Evict(*handle), IsOk());
}

TEST_F(CacheAttacksTest, AMappingThatCouldWriteKeepsAnEntryFromBeingSealed) {
  CachePeer writer = Peer();
  const v1::Handle reserved = *writer.Reserve(kSmallEntryBytes);
  const auto received = writer.WriteDescriptor(reserved);
  ASSERT_THAT(received, IsOk());
  std::uint64_t used = 0;
  {
    const auto writable = MapDescriptor(received->fd.get(), received->bytes, Access::kWrite);
    used = WriteSmallEntry(writable->memory(), FromProto(reserved));
    EXPECT_EQ(Reason(writer.Seal(reserved, used).status()), "STILL_MAPPED");
    // For reading only, of the part that nobody would look at; it could be made writable.
    void* const sly = ::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, received->fd.get(), 8192);
    ASSERT_NE(sly, MAP_FAILED);
    EXPECT_EQ(Reason(writer.Seal(reserved, used).status()), "STILL_MAPPED");
    ::munmap(sly, 4096);
  }
  const auto handle = writer.Seal(reserved, used);
  ASSERT_THAT(handle, IsOk());
  EXPECT_THAT(writer.Evict(*handle), IsOk());
}

TEST_F(CacheAttacksTest, ADamagedHeaderIsFoundAtSeal) {
  CachePeer writer = Peer();
  std::mt19937_64 random(Seed());
  for (std::size_t at = 0; at < sizeof(arena::EntryHeader); at += 1 + random() % 8) {
    const v1::Handle reserved = *writer.Reserve(kSmallEntryBytes);
    std::uint64_t used = 0;
    {
      const auto received = writer.WriteDescriptor(reserved);
      const auto mapping = MapDescriptor(received->fd.get(), received->bytes, Access::kWrite);
      used = WriteSmallEntry(mapping->memory(), FromProto(reserved), at);
      mapping->memory()[at] ^= static_cast<std::byte>(1 + random() % 255);
    }
    const absl::Status status = writer.Seal(reserved, used).status();
    const bool format = at >= 8 && at < 24;  // version, size of the header, layout
    EXPECT_EQ(status.code(),
              format ? absl::StatusCode::kFailedPrecondition : absl::StatusCode::kDataLoss)
        << at << status;
    ExpectAll(Try(writer, reserved), "HANDLE_UNKNOWN");
    EXPECT_EQ(writer.Stat().allocated_bytes(), 0U);
  }
}

// With right checksums, as whoever can write an entry can make them.
TEST_F(CacheAttacksTest, RangesThatOverlapOverflowOrLeaveTheEntryAreFoundAtSeal) {
  const std::vector<std::function<void(EntryBytes&)>> lies{
      [](EntryBytes& e) { e.head(1).keys = e.head(0).keys; },
      [](EntryBytes& e) { e.head(0).values = e.head(0).keys; },
      [](EntryBytes& e) { e.head(0).keys = ~std::uint64_t{0} - 63; },
      [](EntryBytes& e) { e.head(0).keys = std::uint64_t(-64); },
      [](EntryBytes& e) { e.head(0).positions = std::uint64_t{1} << 63; },
      [](EntryBytes& e) { e.head(0).pairs = ~std::uint64_t{0}; },
      [](EntryBytes& e) { e.head(0).pairs = (std::uint64_t{1} << 62) + 1; },
      [](EntryBytes& e) { e.extent(0).offset += 64; },
      [](EntryBytes& e) { e.extent(0).bytes = std::uint64_t(-128); },
      [](EntryBytes& e) { e.extent(0).layers = 0xFFFFFFFF; },
      [](EntryBytes& e) { e.extent(0).first_head = 1; },
      [](EntryBytes& e) { e.header().total_bytes = std::uint64_t{1} << 63; },
      [](EntryBytes& e) { e.header().layers = 0x7FFFFFFF; },
      [](EntryBytes& e) { e.header().kv_heads = 0xFFFFFFFF; },
      [](EntryBytes& e) { e.header().heads_offset = std::uint64_t(-320); },
      [](EntryBytes& e) { e.header().payload_offset = 0; },
      [](EntryBytes& e) { e.header().extents = 0xFFFFFFFF; },
      [](EntryBytes& e) { e.header().prompt_tokens = 1; },
      [](EntryBytes& e) { e.header().kept_mass = -1; },
  };
  CachePeer writer = Peer();
  for (std::size_t lie = 0; lie < lies.size(); ++lie) {
    const v1::Handle reserved = *writer.Reserve(kSmallEntryBytes);
    std::mt19937_64 random(Seed());
    EntryContent content = RandomContent(random);
    content.shape = {.layers = 2, .kv_heads = 2, .head_dim = 5};
    content.pairs = {3, 4, 5, 6};
    content.metadata.epoch = reserved.epoch();
    content.metadata.entry_id = reserved.entry_id();
    EntryBytes entry(content, random);
    lies[lie](entry);
    entry.FixChecksums();
    {
      const auto received = writer.WriteDescriptor(reserved);
      const auto mapping = MapDescriptor(received->fd.get(), received->bytes, Access::kWrite);
      std::memcpy(mapping->memory().data(), entry.bytes().data(), entry.bytes().size());
    }
    const absl::Status status = writer.Seal(reserved, entry.bytes().size()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << lie << status;
    EXPECT_EQ(writer.Stat().allocated_bytes(), 0U);
  }
}

TEST_F(CacheAttacksTest, NumbersOutOfRangeAreRefused) {
  CachePeer peer = Peer();
  constexpr std::uint64_t kMost = ~std::uint64_t{0};
  EXPECT_EQ(peer.Reserve(0).status().code(), absl::StatusCode::kInvalidArgument);
  for (const std::uint64_t bytes :
       {kMost, kMost - 4095, std::uint64_t{1} << 63, std::uint64_t{(1 << 20) + 1}}) {
    EXPECT_EQ(Reason(peer.Reserve(bytes).status()), "ENTRY_TOO_LARGE") << bytes;
  }
  EXPECT_EQ(peer.Reserve(1, std::string(31, 'k')).status().code(),
            absl::StatusCode::kInvalidArgument);
  const v1::Handle reserved = *peer.Reserve(4096);
  for (const std::uint64_t used : {std::uint64_t{0}, std::uint64_t{4097}, kMost}) {
    EXPECT_EQ(peer.Seal(reserved, used).status().code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_THAT(peer.Drop(reserved), IsOk());
  const v1::Handle sealed = peer.SmallEntry();
  for (const std::uint32_t ttl : {1U, 999U, 3'600'001U, 0xFFFFFFFFU}) {
    EXPECT_EQ(peer.Lease(sealed, ttl).status().code(), absl::StatusCode::kInvalidArgument);
  }
  for (const std::int32_t limit : {-1, 1001, std::numeric_limits<std::int32_t>::min()}) {
    v1::ListRequest request;
    request.set_limit(limit);
    v1::ListResponse response;
    EXPECT_EQ(peer.Ask(&Stub::List, request, &response).code(), absl::StatusCode::kInvalidArgument);
  }
  v1::ReleaseResponse released;
  EXPECT_EQ(peer.Ask(&Stub::Release, v1::ReleaseRequest(), &released).code(),
            absl::StatusCode::kInvalidArgument);
  v1::EvictResponse evicted;
  EXPECT_EQ(peer.Ask(&Stub::Evict, v1::EvictRequest(), &evicted).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(peer.Evict(sealed), IsOk());
}

TEST_F(CacheAttacksTest, AWriterThatMeddlesWithItsDescriptorLosesItsReservation) {
  const std::vector<std::function<void(int)>> tricks{
      [](int fd) { EXPECT_EQ(::ftruncate(fd, 0), 0); },
      [](int fd) { EXPECT_EQ(::ftruncate(fd, 64), 0); },
      [](int fd) {
        EXPECT_EQ(::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), 0);
      },
      [](int fd) { EXPECT_EQ(::fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL), 0); },
  };
  CachePeer writer = Peer();
  for (std::size_t trick = 0; trick < tricks.size(); ++trick) {
    const v1::Handle reserved = *writer.Reserve(kSmallEntryBytes);
    const auto received = writer.WriteDescriptor(reserved);
    std::uint64_t used = 0;
    {
      const auto mapping = MapDescriptor(received->fd.get(), received->bytes, Access::kWrite);
      used = WriteSmallEntry(mapping->memory(), FromProto(reserved));
    }
    tricks[trick](received->fd.get());
    EXPECT_FALSE(writer.Seal(reserved, used).ok()) << trick;
    ExpectAll(Try(writer, reserved), "HANDLE_UNKNOWN");
    EXPECT_EQ(writer.Stat().allocated_bytes(), 0U);
  }
}

TEST_F(CacheAttacksTest, FloodsAndNoiseOnTheSocketDoNotReachThoseWhoWork) {
  CachePeer honest = Peer("honest");
  const v1::Handle handle = honest.SmallEntry();
  std::mt19937_64 random(Seed());
  {
    std::vector<RawPeer> flood;
    for (int i = 0; i < 300; ++i) {
      flood.emplace_back(socket_);
      if (random() % 2 == 0) flood.back().Send(HelloBytes());
      std::vector<std::byte> packet(random() % 200);
      for (std::byte& byte : packet) byte = static_cast<std::byte>(random());
      if (random() % 2 == 0) flood.back().Send(packet, std::vector<int>(random() % 4, 0));
      if (i % 50 == 0) {
        const auto lease = honest.Lease(handle);
        ASSERT_THAT(lease, IsOk());
        EXPECT_THAT(honest.ReadDescriptor(*lease), IsOk());
        EXPECT_THAT(honest.Release(*lease), IsOk());
      }
    }
  }
  EXPECT_THAT(honest.Evict(handle), IsOk());
}

TEST_F(CacheAttacksTest, OneSessionsGreedIsBounded) {
  CachePeer greedy = Peer(), other = Peer("blue");
  const v1::Handle handle = greedy.SmallEntry(), theirs = other.SmallEntry();
  absl::Status status;
  int leases = 0;
  for (; status.ok(); ++leases) status = greedy.Lease(handle).status();
  EXPECT_EQ(Reason(status), "TOO_MANY_LEASES");
  EXPECT_EQ(leases, 4097);
  EXPECT_THAT(other.Lease(theirs), IsOk());
  int reservations = 0;
  for (status = absl::OkStatus(); status.ok(); ++reservations) {
    status = greedy.Reserve(1).status();
  }
  EXPECT_EQ(Reason(status), "CACHE_FULL");
  EXPECT_LE(reservations, 257);
  for (CachePeer* peer : {&greedy, &other}) {
    v1::EvictRequest all;
    all.set_all(true);
    v1::EvictResponse evicted;
    EXPECT_THAT(peer->Ask(&Stub::Evict, all, &evicted), IsOk());
    EXPECT_EQ(evicted.entries(), 1);
  }
}

}  // namespace
}  // namespace maskkv::testing
