// SPDX-License-Identifier: Apache-2.0
#include "services/common/status.h"

#include <grpcpp/support/status.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "core/base/error.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "services/common/printable.h"

namespace maskkv::services {
namespace {

constexpr char kDomain[] = "maskkv";
constexpr std::size_t kMaxMessageBytes = 1024;
// Trailers have to stay below the 8 KiB of metadata that gRPC takes.
constexpr std::size_t kMaxFacts = 8, kMaxFactBytes = 128;
constexpr std::chrono::milliseconds kMaxRetryWait = std::chrono::hours(1);

bool IsReason(std::string_view text) {
  const auto allowed = [](char c) {
    return (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  };
  return !text.empty() && text.size() <= 63 && text.front() >= 'A' && text.front() <= 'Z' &&
         std::all_of(text.begin(), text.end(), allowed);
}

google::rpc::ErrorInfo ToErrorInfo(const absl::Status& status) {
  google::rpc::ErrorInfo info;
  info.set_reason(ErrorReason(status));
  info.set_domain(kDomain);
  for (const auto& [name, value] : FactsOf(status)) {
    if (static_cast<std::size_t>(info.metadata_size()) == kMaxFacts) break;
    (*info.mutable_metadata())[Printable(name, kMaxFactBytes)] = Printable(value, kMaxFactBytes);
  }
  return info;
}

google::rpc::RetryInfo ToRetryInfo(std::chrono::milliseconds wait) {
  google::rpc::RetryInfo info;
  info.mutable_retry_delay()->set_seconds(wait.count() / 1000);
  info.mutable_retry_delay()->set_nanos(static_cast<std::int32_t>(wait.count() % 1000) * 1'000'000);
  return info;
}

std::chrono::milliseconds WaitOf(const google::rpc::RetryInfo& info) {
  const std::int64_t seconds = std::clamp<std::int64_t>(info.retry_delay().seconds(), 0, 3600);
  const std::int64_t nanos = std::clamp(info.retry_delay().nanos(), 0, 999'999'999);
  return std::min(std::chrono::milliseconds(seconds * 1000 + nanos / 1'000'000), kMaxRetryWait);
}

absl::StatusCode CodeOf(const grpc::Status& status) {
  const int code = status.error_code();
  return code > 0 && code <= 16 ? static_cast<absl::StatusCode>(code) : absl::StatusCode::kUnknown;
}

}  // namespace

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const int code = static_cast<int>(status.code());
  const std::string message = Printable(std::string(status.message()), kMaxMessageBytes);
  google::rpc::Status details;
  details.set_code(code);
  details.set_message(message);
  details.add_details()->PackFrom(ToErrorInfo(status));
  if (const std::optional<std::chrono::milliseconds> wait = RetryAfter(status)) {
    details.add_details()->PackFrom(ToRetryInfo(*wait));
  }
  return {static_cast<grpc::StatusCode>(code), message, details.SerializeAsString()};
}

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  const absl::StatusCode code = CodeOf(status);
  const std::string message = Printable(status.error_message(), kMaxMessageBytes);
  absl::Status result(code, message);
  google::rpc::Status details;
  if (status.error_details().empty() || !details.ParseFromString(status.error_details())) {
    return result;
  }
  google::rpc::ErrorInfo info;
  google::rpc::RetryInfo retry;
  std::optional<std::chrono::milliseconds> wait;
  for (const auto& detail : details.details()) {
    // UnpackTo leaves its target as it was where the type is another one.
    if (detail.Is<google::rpc::ErrorInfo>()) {
      if (!detail.UnpackTo(&info) || info.domain() != kDomain || !IsReason(info.reason())) continue;
      ErrorFacts facts;
      for (const auto& [name, value] : info.metadata()) {
        if (facts.size() == kMaxFacts) break;
        facts[Printable(name, kMaxFactBytes)] = Printable(value, kMaxFactBytes);
      }
      result = MakeError(code, info.reason(), message, facts);
    } else if (detail.Is<google::rpc::RetryInfo>()) {
      if (detail.UnpackTo(&retry)) wait = WaitOf(retry);
    }
  }
  return wait ? WithRetryAfter(std::move(result), *wait) : result;
}

}  // namespace maskkv::services
