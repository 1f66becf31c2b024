// SPDX-License-Identifier: Apache-2.0
//
// Entries that stay leased for a while after their request ended (GenerateRequest.keep_entry_ms),
// so that a next question finds them. Bounded in number and bytes for each tenant: what would end
// first goes first. The clock is injected.
//
// What is dropped is returned, for the caller to destroy where unmapping holds nobody up.
// Invariant: no tenant is above its bounds; an entry is held once, until the latest time asked for.
#ifndef MASKKV_SERVICES_DECODE_KEPT_ENTRIES_H_
#define MASKKV_SERVICES_DECODE_KEPT_ENTRIES_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "core/base/clock.h"

namespace maskkv::decode {

struct KeptLimits {
  std::size_t entries = 64;                      // a tenant
  std::uint64_t bytes = std::uint64_t{1} << 30;  // a tenant
};

// A plain class; not thread safe.
class KeptEntries {
 public:
  using Entry = std::shared_ptr<const void>;  // destroying it ends the lease
  // Names an entry: the owner's epoch, the entry.
  using Key = std::pair<std::uint64_t, std::uint64_t>;

  KeptEntries(const KeptLimits& limits, const Clock& clock) : limits_(limits), clock_(clock) {}

  // Holds the entry for `time` from now. One larger than the bound alone is not held.
  [[nodiscard]] std::vector<Entry> Keep(const std::string& tenant, const Key& key, Entry entry,
                                        std::uint64_t bytes, Duration time);

  // What has been held long enough.
  [[nodiscard]] std::vector<Entry> Expire();

  std::size_t size() const;
  void CheckInvariants() const;

 private:
  struct Held {
    Entry entry;
    std::uint64_t bytes = 0;
    TimePoint until;
  };
  struct Tenant {
    std::map<Key, Held> entries;
    std::uint64_t bytes = 0;
  };

  // Takes out the entry that ends first.
  static Entry TakeFirst(Tenant& tenant);

  const KeptLimits limits_;
  const Clock& clock_;
  std::map<std::string, Tenant> tenants_;  // none without entries
};

// Entries kept for a next question, with what makes them safe to share between calls.
class SharedKeptEntries {
 public:
  SharedKeptEntries(const KeptLimits& limits, const Clock& clock) : kept_(limits, clock) {}

  void Keep(const std::string& tenant, const KeptEntries::Key& key, KeptEntries::Entry entry,
            std::uint64_t bytes, Duration time);
  // To be called now and then.
  void Expire();

 private:
  std::mutex mu_;
  KeptEntries kept_;  // guarded by mu_
};

}  // namespace maskkv::decode

#endif  // MASKKV_SERVICES_DECODE_KEPT_ENTRIES_H_
