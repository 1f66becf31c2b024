// SPDX-License-Identifier: Apache-2.0
#include "core/base/error.h"

#include <charconv>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/string_view.h"
#include "core/base/check.h"

namespace maskkv {
namespace {

// Payload keys. They stay inside a process: between processes the reason and the facts travel as
// google.rpc messages.
constexpr std::string_view kReasonKey = "maskkv/reason";
constexpr std::string_view kRetryKey = "maskkv/retry_after_ms";
constexpr std::string_view kFactPrefix = "maskkv/fact/";

absl::string_view Absl(std::string_view text) { return {text.data(), text.size()}; }

bool IsReason(std::string_view reason) {
  if (reason.empty() || reason[0] < 'A' || reason[0] > 'Z') return false;
  for (const char c : reason) {
    if (!((c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_')) return false;
  }
  return true;
}

}  // namespace

absl::Status MakeError(absl::StatusCode code, std::string_view reason, std::string_view message,
                       const ErrorFacts& facts) {
  MASKKV_CHECK(code != absl::StatusCode::kOk, "an error needs a code that is not OK");
  MASKKV_CHECK(IsReason(reason), "a reason is UPPER_SNAKE_CASE");
  absl::Status status(code, Absl(message));
  status.SetPayload(Absl(kReasonKey), absl::Cord(Absl(reason)));
  for (const auto& [name, value] : facts) {
    status.SetPayload(std::string(kFactPrefix) + name, absl::Cord(value));
  }
  return status;
}

absl::Status WithRetryAfter(absl::Status status, std::chrono::milliseconds wait) {
  if (!status.ok()) status.SetPayload(Absl(kRetryKey), absl::Cord(std::to_string(wait.count())));
  return status;
}

std::string ErrorReason(const absl::Status& status) {
  if (status.ok()) return "";
  if (const auto reason = status.GetPayload(Absl(kReasonKey))) return std::string(*reason);
  return absl::StatusCodeToString(status.code());
}

ErrorFacts FactsOf(const absl::Status& status) {
  ErrorFacts facts;
  status.ForEachPayload([&facts](absl::string_view key, const absl::Cord& value) {
    const std::string_view name(key.data(), key.size());
    if (!name.starts_with(kFactPrefix)) return;
    facts.emplace(name.substr(kFactPrefix.size()), std::string(value));
  });
  return facts;
}

std::optional<std::chrono::milliseconds> RetryAfter(const absl::Status& status) {
  const auto payload = status.GetPayload(Absl(kRetryKey));
  if (!payload) return std::nullopt;
  const std::string text(*payload);
  std::int64_t wait = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), wait);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return std::chrono::milliseconds(wait);
}

}  // namespace maskkv
