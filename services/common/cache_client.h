// SPDX-License-Identifier: Apache-2.0
//
// The cache manager as prefill and decode see it: control calls over gRPC, descriptors over the
// unix socket, one session for the process. After a restart of the daemon the session is opened
// anew by the next call; entries mapped before stay readable. Leases are renewed in the background
// until they are given back; giving back unmaps first. Thread safe.
#ifndef MASKKV_SERVICES_COMMON_CACHE_CLIENT_H_
#define MASKKV_SERVICES_COMMON_CACHE_CLIENT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/arena/handle.h"
#include "core/arena/mapped_entry.h"
#include "services/common/call.h"

namespace maskkv::services {

struct CacheClientOptions {
  std::string address;  // of the daemon's gRPC server
  std::string socket;   // path of its unix socket
  std::uint32_t lease_ttl_ms = 60'000;
  bool verify_checksums = true;  // of entries that are mapped
  // A daemon that takes longer over a call is down, whatever time the caller has.
  std::uint32_t answer_within_ms = 10'000;
};

// Space that is reserved and mapped writable. Dropped without Seal: the reservation is released.
class WritableEntry {
 public:
  virtual ~WritableEntry() = default;
  virtual const arena::Handle& handle() const = 0;  // version 0
  virtual std::span<std::byte> memory() = 0;        // zero filled, page aligned
  // Unmaps and seals. Errors: of Seal (cache.proto); the reservation is gone then.
  virtual absl::StatusOr<arena::Handle> Seal(std::uint64_t used_bytes) = 0;
};

struct CachedHandle {
  arena::Handle handle;
  std::uint64_t bytes = 0;
};

class CacheClient {
 public:
  // Does not wait for the daemon. Errors: INVALID_ARGUMENT (an empty address or a path that is too
  // long for a socket).
  static absl::StatusOr<std::unique_ptr<CacheClient>> Create(const CacheClientOptions& options);
  ~CacheClient();

  // The tenant comes from `call`. Its deadline and cancellation are looked at when the daemon has
  // answered, which it does within milliseconds: a lost answer would be lost memory.
  // Errors: of cache.proto; UNAVAILABLE (CACHE_DOWN) while the daemon does not answer.
  absl::StatusOr<std::variant<std::unique_ptr<WritableEntry>, CachedHandle>> Reserve(
      const Call& call, std::optional<arena::Digest> key, std::uint64_t max_bytes,
      bool ignore_cached);

  // Leases the entry and maps it. The lease lives as long as the returned view; the last reference
  // unmaps, then releases the lease (not waiting for the answer).
  // Errors: of Lease (cache.proto) and of MappedEntry::Map; UNAVAILABLE (CACHE_DOWN).
  absl::StatusOr<std::shared_ptr<const arena::MappedEntry>> Map(
      const Call& call, const arena::Handle& handle, const arena::Digest& model_fingerprint);

  // Whether the daemon answers and speaks this layout. Errors: UNAVAILABLE (CACHE_DOWN),
  // FAILED_PRECONDITION (LAYOUT_MISMATCH).
  absl::Status Check();

  // Releases of leases that are under way are done. For tests and draining.
  void Flush();

 private:
  struct Impl;
  explicit CacheClient(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace maskkv::services

#endif  // MASKKV_SERVICES_COMMON_CACHE_CLIENT_H_
