// SPDX-License-Identifier: Apache-2.0
#include "services/common/call.h"

#include <grpc/support/time.h>
#include <grpcpp/client_context.h>
#include <grpcpp/server_context.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <iterator>
#include <optional>
#include <random>
#include <string>
#include <string_view>

#include "absl/strings/str_format.h"
#include "core/base/error.h"
#include "services/common/printable.h"

namespace maskkv::services {
namespace {

using SystemClock = std::chrono::system_clock;

bool IsTenant(std::string_view text) {
  const auto plain = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  const auto allowed = [&](char c) { return plain(c) || c == '.' || c == '_' || c == '-'; };
  return !text.empty() && text.size() <= 63 && plain(text.front()) &&
         std::all_of(text.begin(), text.end(), allowed);
}

bool IsLowerHex(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool IsAllZero(std::string_view text) { return text.find_first_not_of('0') == text.npos; }

// VERSION-TRACE-PARENT-FLAGS of 2, 32, 16 and 2 digits. A later version may append fields.
bool IsTraceParent(std::string_view text) {
  constexpr std::size_t kBytes = 55;
  if (text.size() < kBytes || text.size() > 256) return false;
  const std::string_view version = text.substr(0, 2), trace = text.substr(3, 32);
  const std::string_view parent = text.substr(36, 16), flags = text.substr(53, 2);
  if (text[2] != '-' || text[35] != '-' || text[52] != '-') return false;
  if (!IsLowerHex(version) || !IsLowerHex(trace) || !IsLowerHex(parent) || !IsLowerHex(flags)) {
    return false;
  }
  if (version == "ff" || IsAllZero(trace) || IsAllZero(parent)) return false;
  if (text.size() == kBytes) return true;
  return version != "00" && text[kBytes] == '-' && IsPrintableAscii(text, kBytes, 256);
}

// 128 random bits. Not a secret: it names a request in logs.
std::string RandomRequestId() {
  thread_local std::mt19937_64 random = [] {
    std::random_device device;
    std::seed_seq seed{device(), device(), device(), device(), device(), device(), device()};
    return std::mt19937_64(seed);
  }();
  return absl::StrFormat("%016x%016x", random(), random());
}

// The value of `key`; "" if it is not there. Several are malformed: *twice is set.
std::string_view Find(const grpc::ServerContext& context, const char* key, bool* twice) {
  const auto [begin, end] = context.client_metadata().equal_range(key);
  if (begin == end) return "";
  *twice = std::next(begin) != end;
  return {begin->second.data(), begin->second.size()};
}

// nullopt without a deadline, and for one so far away that arithmetic on clocks would overflow.
std::optional<std::chrono::nanoseconds> TimeLeft(const grpc::ServerContext& context) {
  constexpr std::int64_t kYear = 366 * 24 * 3600;
  const gpr_timespec deadline = gpr_convert_clock_type(context.raw_deadline(), GPR_CLOCK_MONOTONIC);
  const gpr_timespec left = gpr_time_sub(deadline, gpr_now(GPR_CLOCK_MONOTONIC));
  if (left.tv_sec > kYear) return std::nullopt;
  if (left.tv_sec < -kYear) return std::chrono::nanoseconds(0);
  return std::chrono::seconds(left.tv_sec) + std::chrono::nanoseconds(left.tv_nsec);
}

absl::Status BadMetadata(const char* key, std::string_view expected) {
  return MakeError(absl::StatusCode::kInvalidArgument, "BAD_METADATA",
                   absl::StrFormat("metadata %s: expected %s, found another value", key, expected),
                   {{"field", key}});
}

}  // namespace

absl::StatusOr<Call> Call::Read(const grpc::ServerContext& context, std::string_view request_id) {
  if (context.client_metadata().count(kDrainingKey) != 0) return DrainingError();
  Call call;
  call.context_ = &context;

  bool twice = false;
  const std::string_view tenant = Find(context, kTenantKey, &twice);
  if (twice || (!tenant.empty() && !IsTenant(tenant))) {
    return BadMetadata(kTenantKey, "one name of [a-z0-9][a-z0-9._-]{0,62}");
  }
  call.tenant_ = tenant.empty() ? kDefaultTenant : std::string(tenant);

  twice = false;
  const std::string_view trace = Find(context, kTraceKey, &twice);
  if (!twice && IsTraceParent(trace)) call.trace_parent_ = std::string(trace);

  twice = false;
  std::string_view passed_on = Find(context, kRequestIdKey, &twice);
  if (twice || !IsPrintableAscii(passed_on, 1, 128)) passed_on = {};
  if (request_id.empty()) {
    request_id = passed_on;
  } else if (!IsPrintableAscii(request_id, 1, 128)) {
    return MakeError(absl::StatusCode::kInvalidArgument, "BAD_REQUEST_ID",
                     absl::StrFormat("request_id: expected 1 to 128 printable ASCII characters, "
                                     "found %d bytes",
                                     request_id.size()),
                     {{"field", "request_id"}});
  }
  call.request_id_ = request_id.empty() ? RandomRequestId() : std::string(request_id);
  call.log_id_ = passed_on.empty() ? call.request_id_ : std::string(passed_on);

  if (const auto left = TimeLeft(context)) {
    call.deadline_ = std::chrono::steady_clock::now() + *left;
  }
  return call;
}

absl::Status Call::Alive() const {
  if (deadline_ && std::chrono::steady_clock::now() >= *deadline_) {
    return MakeError(absl::StatusCode::kDeadlineExceeded, "DEADLINE_EXCEEDED",
                     "deadline: expected to be met, found it passed");
  }
  if (context_->IsCancelled()) {
    return MakeError(absl::StatusCode::kCancelled, "CANCELLED", "the caller cancelled the call");
  }
  return absl::OkStatus();
}

void Call::PrepareClient(grpc::ClientContext& client) const {
  client.AddMetadata(kTenantKey, tenant_);
  client.AddMetadata(kRequestIdKey, log_id_);
  if (!trace_parent_.empty()) client.AddMetadata(kTraceKey, trace_parent_);
  if (!deadline_) return;
  const auto left = *deadline_ - std::chrono::steady_clock::now();
  const auto deadline =
      SystemClock::now() + std::chrono::duration_cast<SystemClock::duration>(left);
  // An earlier deadline of the caller's own stays.
  if (deadline < client.deadline()) client.set_deadline(deadline);
}

absl::Status DrainingError() {
  return WithRetryAfter(MakeError(absl::StatusCode::kUnavailable, "DRAINING",
                                  "server: expected to take requests, found it draining"),
                        std::chrono::seconds(1));
}

}  // namespace maskkv::services
