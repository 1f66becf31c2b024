// SPDX-License-Identifier: Apache-2.0
#include "services/decode/kept_entries.h"

#include <algorithm>

#include "core/base/check.h"

namespace maskkv::decode {

std::vector<KeptEntries::Entry> KeptEntries::Keep(const std::string& tenant_name, const Key& key,
                                                  Entry entry, std::uint64_t bytes, Duration time) {
  std::vector<Entry> dropped;
  if (bytes > limits_.bytes || limits_.entries == 0) {
    dropped.push_back(std::move(entry));
    return dropped;
  }
  Tenant& tenant = tenants_[tenant_name];
  TimePoint until = clock_.Now() + time;
  if (const auto found = tenant.entries.find(key); found != tenant.entries.end()) {
    until = std::max(until, found->second.until);
    tenant.bytes -= found->second.bytes;
    dropped.push_back(std::move(found->second.entry));
    tenant.entries.erase(found);
  }
  while (tenant.entries.size() >= limits_.entries || tenant.bytes > limits_.bytes - bytes) {
    dropped.push_back(TakeFirst(tenant));
  }
  tenant.bytes += bytes;
  tenant.entries[key] = {std::move(entry), bytes, until};
  return dropped;
}

KeptEntries::Entry KeptEntries::TakeFirst(Tenant& tenant) {
  const auto first = std::min_element(
      tenant.entries.begin(), tenant.entries.end(),
      [](const auto& a, const auto& b) { return a.second.until < b.second.until; });
  Entry entry = std::move(first->second.entry);
  tenant.bytes -= first->second.bytes;
  tenant.entries.erase(first);
  return entry;
}

std::vector<KeptEntries::Entry> KeptEntries::Expire() {
  std::vector<Entry> dropped;
  const TimePoint now = clock_.Now();
  for (auto tenant = tenants_.begin(); tenant != tenants_.end();) {
    std::map<Key, Held>& entries = tenant->second.entries;
    for (auto held = entries.begin(); held != entries.end();) {
      if (held->second.until > now) {
        ++held;
        continue;
      }
      tenant->second.bytes -= held->second.bytes;
      dropped.push_back(std::move(held->second.entry));
      held = entries.erase(held);
    }
    tenant = entries.empty() ? tenants_.erase(tenant) : std::next(tenant);
  }
  return dropped;
}

std::size_t KeptEntries::size() const {
  std::size_t size = 0;
  for (const auto& [name, tenant] : tenants_) size += tenant.entries.size();
  return size;
}

void KeptEntries::CheckInvariants() const {
  for (const auto& [name, tenant] : tenants_) {
    std::uint64_t bytes = 0;
    for (const auto& [key, held] : tenant.entries) bytes += held.bytes;
    MASKKV_CHECK(bytes == tenant.bytes, "bytes are the sum");
    MASKKV_CHECK(bytes <= limits_.bytes && tenant.entries.size() <= limits_.entries,
                 "a tenant stays below its bounds");
    MASKKV_CHECK(!tenant.entries.empty(), "no tenant without entries");
  }
}

void SharedKeptEntries::Keep(const std::string& tenant, const KeptEntries::Key& key,
                             KeptEntries::Entry entry, std::uint64_t bytes, Duration time) {
  std::vector<KeptEntries::Entry> dropped;  // unmapped after the lock is gone
  const std::lock_guard lock(mu_);
  dropped = kept_.Keep(tenant, key, std::move(entry), bytes, time);
}

void SharedKeptEntries::Expire() {
  std::vector<KeptEntries::Entry> dropped;
  const std::lock_guard lock(mu_);
  dropped = kept_.Expire();
}

}  // namespace maskkv::decode
