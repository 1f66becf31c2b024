// SPDX-License-Identifier: Apache-2.0
#include "services/budget/audit_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>

#include "absl/strings/str_format.h"
#include "core/telemetry/log.h"
#include "nlohmann/json.hpp"
#include "services/budget/policy_json.h"

namespace maskkv::budget_service {
namespace {

using telemetry::LogLevel;

constexpr ::mode_t kFileMode = 0640;

std::string Now() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  ::gmtime_r(&now, &utc);
  char text[32];
  const std::size_t size = std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &utc);
  return std::string(text, size);
}

std::string Line(const AuditRecord& record) {
  const nlohmann::ordered_json line{{"time", Now()},
                                    {"event", "set_policy"},
                                    {"result", record.result},
                                    {"tenant", record.author.tenant},
                                    {"peer", record.author.peer},
                                    {"generation_before", record.generation_before},
                                    {"generation_after", record.generation_after},
                                    {"comment", record.author.comment},
                                    {"policy", PolicyJson(record.policy)}};
  return line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

// One write, so that lines of two processes do not mix.
bool WriteLine(int file, const std::string& line) {
  ssize_t written = 0;
  do {
    written = ::write(file, line.data(), line.size());
  } while (written < 0 && errno == EINTR);
  // What cannot be flushed (a pipe, a terminal) says EINVAL.
  return written == static_cast<ssize_t>(line.size()) &&
         (::fdatasync(file) == 0 || errno == EINVAL);
}

}  // namespace

absl::StatusOr<AuditLog> AuditLog::Open(const std::string& path) {
  AuditLog log;
  log.path_ = path;
  if (path.empty()) return log;
  log.file_.Reset(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, kFileMode));
  if (!log.file_.valid()) {
    return absl::ErrnoToStatus(errno, absl::StrFormat("%s: cannot be opened to append", path));
  }
  return log;
}

void AuditLog::Append(const AuditRecord& record) {
  telemetry::Log(LogLevel::kInfo, "policy_set",
                 {{"result", record.result},
                  {"tenant", std::string_view(record.author.tenant)},
                  {"peer", std::string_view(record.author.peer)},
                  {"generation_before", static_cast<std::int64_t>(record.generation_before)},
                  {"generation_after", static_cast<std::int64_t>(record.generation_after)},
                  {"comment", std::string_view(record.author.comment)}});
  const std::lock_guard lock(mu_);
  if (!file_.valid()) return;
  if (!WriteLine(file_.get(), Line(record))) {
    telemetry::Log(LogLevel::kError, "audit_line_lost", {{"file", std::string_view(path_)}});
  }
}

}  // namespace maskkv::budget_service
