// SPDX-License-Identifier: Apache-2.0
//
// The table against a model that keeps flat lists and recomputes everything by looking through
// them, over a million random operations.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "core/arena/cache_table.h"
#include "core/base/error.h"
#include "tests/support/seed.h"

namespace maskkv::arena {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kOperations = 50'000;
#else
constexpr int kOperations = 1'000'000;
#endif
constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kCapacity = 24 * kPage;
constexpr std::uint64_t kQuota = 14 * kPage;
constexpr int kEntries = 18, kQuotaEntries = 10;
constexpr int kLeases = 12;

// What should be true, in the plainest form.
struct Model {
  struct Entry {
    Handle handle;
    std::string tenant;
    std::optional<Digest> key;
    std::uint64_t bytes = 0;
    EntryState state = EntryState::kReserved;
    int writer = -1;
    std::multiset<int> mapped_by;
    std::uint64_t used = 0;
  };
  struct Lease {
    LeaseId id;
    int session = -1;
    std::uint64_t entry = 0;
    TimePoint expires;
    bool expired = false, mapped = false;
  };

  std::map<int, Caller> sessions;
  std::vector<Entry> entries;  // by id
  std::vector<Lease> leases;
  std::uint64_t uses = 0;

  Entry* At(std::uint64_t id) {
    for (Entry& entry : entries) {
      if (entry.handle.entry_id == id) return &entry;
    }
    return nullptr;
  }
  int Leased(const Entry& entry) const {
    return static_cast<int>(std::count_if(leases.begin(), leases.end(), [&](const Lease& lease) {
      return lease.entry == entry.handle.entry_id && !lease.expired;
    }));
  }
  bool Evictable(const Entry& entry) const {
    return entry.state == EntryState::kSealed && Leased(entry) == 0 && entry.mapped_by.empty();
  }
  std::uint64_t Bytes(const std::string& tenant, bool unevictable_only) const {
    std::uint64_t sum = 0;
    for (const Entry& entry : entries) {
      if (!tenant.empty() && entry.tenant != tenant) continue;
      if (!unevictable_only || !Evictable(entry)) sum += entry.bytes;
    }
    return sum;
  }
  int Entries(const std::string& tenant, bool unevictable_only) const {
    return static_cast<int>(std::ranges::count_if(entries, [&](const Entry& entry) {
      return (tenant.empty() || entry.tenant == tenant) && (!unevictable_only || !Evictable(entry));
    }));
  }
  int LeasesOf(int session) const {
    return static_cast<int>(std::ranges::count(leases, session, &Lease::session));
  }
  Entry* Oldest(const std::string& tenant) {
    Entry* oldest = nullptr;
    for (Entry& entry : entries) {
      if (!Evictable(entry) || (!tenant.empty() && entry.tenant != tenant)) continue;
      if (oldest == nullptr || entry.used < oldest->used) oldest = &entry;
    }
    return oldest;
  }
  void Remove(std::uint64_t id, std::set<std::uint64_t>& gone) {
    std::erase_if(entries, [&](const Entry& entry) { return entry.handle.entry_id == id; });
    gone.insert(id);
  }
  void DropIfDone(std::uint64_t id, std::set<std::uint64_t>& gone) {
    const Entry* entry = At(id);
    if (entry != nullptr && entry->state == EntryState::kPending && entry->mapped_by.empty()) {
      Remove(id, gone);
    }
  }
  void Evict(std::uint64_t id, std::set<std::uint64_t>& gone) {
    At(id)->state = EntryState::kPending;
    for (Lease& lease : leases) lease.expired |= lease.entry == id;
    std::erase_if(leases, [](const Lease& lease) { return lease.expired && !lease.mapped; });
    DropIfDone(id, gone);
  }
  void EndLease(std::size_t index, std::set<std::uint64_t>& gone) {
    const Lease lease = leases[index];
    leases.erase(leases.begin() + static_cast<std::ptrdiff_t>(index));
    Entry& entry = *At(lease.entry);
    entry.used = ++uses;
    if (lease.mapped) entry.mapped_by.erase(entry.mapped_by.find(lease.session));
    DropIfDone(lease.entry, gone);
  }
};

class RandomRun {
 public:
  RandomRun()
      : table_(Limits(), "o", 5, clock_, [this](std::span<std::byte> bytes) {
          for (std::byte& b : bytes) b = static_cast<std::byte>(random_());
        }) {}

  void Run() {
    for (int i = 0; i < kOperations && !::testing::Test::HasFailure(); ++i) {
      gone_.clear();
      expected_gone_.clear();
      const int operation = Pick(20);
      if (operation == 0 || model_.sessions.empty()) {
        Open();
      } else if (operation == 1) {
        if (Pick(4) == 0) Close();
      } else if (operation < 8) {
        ReserveAndPerhapsSeal();
      } else if (operation < 12) {
        Lease();
      } else if (operation < 16) {
        EndLease();
      } else if (operation == 16) {
        Evict();
      } else if (operation == 17) {
        Advance();
      } else if (operation == 18) {
        SealOrDrop();
      } else {
        Read();
      }
      ASSERT_EQ(gone_, expected_gone_) << "operation " << i << " of kind " << operation;
      Compare(i);
      if (i % 16 == 0) table_.CheckInvariants();
    }
  }

 private:
  static CacheLimits Limits() {
    CacheLimits limits;
    limits.capacity_bytes = kCapacity;
    limits.quota_bytes = kQuota;
    limits.max_sessions = 8;
    limits.max_leases = kLeases;
    limits.max_entries = kEntries;
    return limits;
  }
  int Pick(int n) { return static_cast<int>(random_() % static_cast<std::uint64_t>(n)); }
  std::pair<const int, Caller>& AnySession() {
    return *std::next(model_.sessions.begin(), Pick(static_cast<int>(model_.sessions.size())));
  }
  Model::Entry* AnyEntry() {
    return model_.entries.empty() ? nullptr
                                  : &model_.entries[static_cast<std::size_t>(
                                        Pick(static_cast<int>(model_.entries.size())))];
  }
  void Gone(const GoneEntries& gone) { gone_.insert(gone.begin(), gone.end()); }

  void Open() {
    const std::string tenant(1, static_cast<char>('a' + Pick(3)));
    const auto token = table_.OpenSession({1, tenant, false});
    ASSERT_EQ(token.ok(), model_.sessions.size() < 8);
    if (token.ok()) model_.sessions[next_session_++] = {*token, tenant};
  }

  void Close() {
    const auto [number, caller] = AnySession();
    Gone(table_.CloseSession(caller.session));
    // Leases end in the order of their ids, each a use of its entry.
    std::ranges::sort(model_.leases, {}, &Model::Lease::id);
    for (std::size_t i = 0; i < model_.leases.size();) {
      model_.leases[i].session == number ? model_.EndLease(i, expected_gone_) : void(++i);
    }
    for (const Model::Entry& entry : std::vector<Model::Entry>(model_.entries)) {
      if (entry.writer == number) model_.Remove(entry.handle.entry_id, expected_gone_);
    }
    model_.sessions.erase(number);
  }

  void ReserveAndPerhapsSeal() {
    const auto& [number, caller] = AnySession();
    std::optional<Digest> key;
    if (Pick(3) > 0) {
      key.emplace();
      (*key)[0] = static_cast<std::byte>(Pick(6));
    }
    const std::uint64_t bytes = 1 + random_() % (Pick(8) == 0 ? 16 * kPage : 4 * kPage);
    const std::uint64_t pages = (bytes + kPage - 1) / kPage * kPage;
    const bool ignore = Pick(8) == 0;
    const auto reserved = table_.Reserve(caller, key, bytes, ignore);
    if (key && !ignore) {
      for (Model::Entry& entry : model_.entries) {
        if (entry.state != EntryState::kSealed || entry.tenant != caller.tenant ||
            entry.key != key) {
          continue;
        }
        ASSERT_TRUE(reserved.ok() && reserved->cached);
        EXPECT_EQ(reserved->handle, entry.handle);
        entry.used = ++model_.uses;
        return;
      }
    }
    const bool large = pages > kQuota;
    const bool quota = model_.Bytes(caller.tenant, true) + pages > kQuota ||
                       model_.Entries(caller.tenant, true) >= kQuotaEntries;
    const bool full =
        model_.Bytes("", true) + pages > kCapacity || model_.Entries("", true) >= kEntries;
    ASSERT_EQ(ErrorReason(reserved.status()), large   ? "ENTRY_TOO_LARGE"
                                              : quota ? "QUOTA_EXCEEDED"
                                              : full  ? "CACHE_FULL"
                                                      : "");
    if (!reserved.ok()) return;
    ASSERT_FALSE(reserved->cached);
    Gone(reserved->gone);
    while (model_.Bytes(caller.tenant, false) + pages > kQuota ||
           model_.Entries(caller.tenant, false) >= kQuotaEntries) {
      model_.Evict(model_.Oldest(caller.tenant)->handle.entry_id, expected_gone_);
    }
    while (model_.Bytes("", false) + pages > kCapacity || model_.Entries("", false) >= kEntries) {
      Model::Entry* own = model_.Oldest(caller.tenant);
      model_.Evict((own != nullptr ? own : model_.Oldest(""))->handle.entry_id, expected_gone_);
    }
    Model::Entry entry;
    entry.handle = reserved->handle;
    entry.tenant = caller.tenant;
    entry.key = key;
    entry.bytes = pages;
    entry.writer = number;
    entry.used = ++model_.uses;
    model_.entries.push_back(entry);
    if (Pick(2) == 0) {
      ASSERT_TRUE(
          table_.WriteTarget(caller.session, entry.handle.entry_id, entry.handle.nonce).ok());
    }
    if (Pick(4) > 0) Seal(entry.handle.entry_id, caller);
  }

  void Seal(std::uint64_t id, const Caller& caller) {
    Model::Entry& entry = *model_.At(id);
    const auto begun = table_.BeginSeal(caller, entry.handle, 1);
    ASSERT_TRUE(begun.ok()) << begun.status();
    if (Pick(6) == 0) {
      const bool keep = Pick(2) == 0;
      Gone(table_.AbortSeal(id, keep));
      if (!keep) model_.Remove(id, expected_gone_);
      return;
    }
    const auto handle = table_.FinishSeal(id, kPage, {});
    ASSERT_TRUE(handle.ok());
    for (Model::Entry& other : model_.entries) {
      if (other.state == EntryState::kSealed && other.tenant == entry.tenant && entry.key &&
          other.key == entry.key) {
        other.key.reset();
      }
    }
    entry.handle = *handle;
    entry.state = EntryState::kSealed;
    entry.writer = -1;
    entry.bytes = kPage;
    entry.used = ++model_.uses;
  }

  void SealOrDrop() {
    Model::Entry* entry = AnyEntry();
    if (entry == nullptr || entry->writer < 0) return;
    const Caller caller = model_.sessions.at(entry->writer);
    if (Pick(2) == 0) return Seal(entry->handle.entry_id, caller);
    const std::uint64_t id = entry->handle.entry_id;
    const auto dropped = table_.Drop(caller, entry->handle);
    ASSERT_TRUE(dropped.ok());
    Gone(*dropped);
    model_.Remove(id, expected_gone_);
  }

  void Lease() {
    const auto& [number, caller] = AnySession();
    Model::Entry* entry = AnyEntry();
    if (entry == nullptr) return;
    const Duration ttl = std::chrono::seconds(1 + Pick(20));
    const auto lease = table_.Lease(caller, entry->handle, ttl);
    const std::string expected =
        entry->tenant != caller.tenant || entry->state == EntryState::kPending ? "HANDLE_UNKNOWN"
        : entry->state != EntryState::kSealed                                  ? "NOT_SEALED"
        : model_.LeasesOf(number) >= kLeases                                   ? "TOO_MANY_LEASES"
                                                                               : "";
    ASSERT_EQ(ErrorReason(lease.status()), expected);
    if (!lease.ok()) return;
    entry->used = ++model_.uses;
    model_.leases.push_back(
        {lease->id, number, entry->handle.entry_id, clock_.Now() + ttl, false, false});
    if (Pick(3) > 0) ReadAt(model_.leases.size() - 1);
  }

  void Read() {
    if (!model_.leases.empty()) {
      ReadAt(static_cast<std::size_t>(Pick(static_cast<int>(model_.leases.size()))));
    }
  }

  void ReadAt(std::size_t index) {
    Model::Lease& lease = model_.leases[index];
    const auto target = table_.ReadTarget(model_.sessions.at(lease.session).session, lease.id);
    ASSERT_EQ(ErrorReason(target.status()), lease.expired ? "LEASE_UNKNOWN" : "");
    if (!target.ok() || lease.mapped) return;
    lease.mapped = true;
    model_.At(lease.entry)->mapped_by.insert(lease.session);
  }

  void EndLease() {
    if (model_.leases.empty()) return;
    const auto index = static_cast<std::size_t>(Pick(static_cast<int>(model_.leases.size())));
    const auto released =
        table_.Release(model_.sessions.at(model_.leases[index].session), model_.leases[index].id);
    ASSERT_TRUE(released.ok());
    Gone(*released);
    model_.EndLease(index, expected_gone_);
  }

  void Evict() {
    const auto& [number, caller] = AnySession();
    Model::Entry* entry = AnyEntry();
    if (entry == nullptr) return;
    const std::uint64_t id = entry->handle.entry_id;
    const auto outcome = table_.Evict(caller, entry->handle);
    const bool theirs = entry->tenant == caller.tenant && entry->state != EntryState::kPending;
    ASSERT_EQ(ErrorReason(outcome.status()), !theirs ? "HANDLE_UNKNOWN"
                                             : entry->state == EntryState::kSealed ? ""
                                                                                   : "NOT_SEALED");
    if (!outcome.ok()) return;
    Gone(outcome->gone);
    model_.Evict(id, expected_gone_);
  }

  void Advance() {
    clock_.Advance(std::chrono::milliseconds(Pick(4000)));
    std::int64_t expected = 0;
    for (Model::Lease& lease : model_.leases) {
      if (lease.expired || lease.expires > clock_.Now()) continue;
      lease.expired = true;
      ++expected;
    }
    std::erase_if(model_.leases, [](const auto& lease) { return lease.expired && !lease.mapped; });
    ASSERT_EQ(table_.ExpireLeases(), expected);
  }

  void Compare(int operation) {
    CacheStat expected;
    expected.capacity_bytes = kCapacity;
    expected.sessions = static_cast<std::int64_t>(model_.sessions.size());
    for (const Model::Entry& entry : model_.entries) {
      expected.allocated_bytes += entry.bytes;
      const int leased = model_.Leased(entry);
      expected.leases += leased;
      if (leased > 0) expected.leased_bytes += entry.bytes;
      expected.reserved_entries += entry.state == EntryState::kReserved;
      expected.sealed_entries += entry.state == EntryState::kSealed;
      expected.pending_entries += entry.state == EntryState::kPending;
      if (entry.state == EntryState::kPending) expected.pending_bytes += entry.bytes;
    }
    ASSERT_EQ(table_.Stat(), expected) << "operation " << operation;
  }

  std::mt19937_64 random_{maskkv::testing::Seed()};
  ManualClock clock_;
  Model model_;
  CacheTable table_;
  int next_session_ = 0;
  std::set<std::uint64_t> gone_, expected_gone_;
};

TEST(CacheTableRandom, AgreesWithAPlainModelOverAMillionOperations) { RandomRun().Run(); }

}  // namespace
}  // namespace maskkv::arena
