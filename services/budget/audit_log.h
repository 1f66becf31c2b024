// SPDX-License-Identifier: Apache-2.0
//
// Who changed the policy, when and why: one JSON object a line, appended to a file and flushed to
// the device, and the same as a log event. Refused and repeated changes are lines too.
//
//   {"time": "2026-11-25T07:09:33Z", "event": "set_policy", "result": "applied", "tenant":
//   "default",
//    "peer": "unix", "generation_before": 7, "generation_after": 8, "comment": "...", "policy":
//    {...}}
//
// Thread safe.
#ifndef MASKKV_SERVICES_BUDGET_AUDIT_LOG_H_
#define MASKKV_SERVICES_BUDGET_AUDIT_LOG_H_

#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/unique_fd.h"
#include "core/budget/plan.h"

namespace maskkv::budget_service {

// Who asks, and in which words.
struct Author {
  std::string tenant;
  std::string peer;     // kind of address: "ipv4", "ipv6", "unix"
  std::string comment;  // printable
};

struct AuditRecord {
  Author author;
  std::string_view result;  // "applied", "unchanged", "refused", "failed"
  std::uint64_t generation_before = 0;
  std::uint64_t generation_after = 0;
  budget::Policy policy;  // that was asked for
};

class AuditLog {
 public:
  // path "": log events only. Creates the file with mode 0640.
  // Errors: what the system says, starting with the path.
  static absl::StatusOr<AuditLog> Open(const std::string& path);

  AuditLog(AuditLog&& other) noexcept
      : path_(std::move(other.path_)), file_(std::move(other.file_)) {}

  // A line that cannot be written is a log event of its own: the change has been made.
  void Append(const AuditRecord& record);

 private:
  AuditLog() = default;

  std::string path_;
  std::mutex mu_;
  UniqueFd file_;  // guarded by mu_
};

}  // namespace maskkv::budget_service

#endif  // MASKKV_SERVICES_BUDGET_AUDIT_LOG_H_
