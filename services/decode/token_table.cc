// SPDX-License-Identifier: Apache-2.0
#include "services/decode/token_table.h"

#include <algorithm>
#include <span>

#include "absl/strings/str_format.h"
#include "core/base/error.h"
#include "core/base/file.h"
#include "core/base/sha256.h"
#include "core/base/status_macros.h"

namespace maskkv::decode {
namespace {

constexpr std::size_t kMinTokenBytes = 16, kMaxTokenBytes = 512, kMaxTenantBytes = 63;
constexpr std::size_t kMaxFileBytes = std::size_t{1} << 24;
constexpr std::string_view kScheme = "Bearer ";

std::array<std::byte, 32> DigestOf(std::string_view token) {
  Sha256 hash;
  hash.Update(std::as_bytes(std::span(token)));
  return hash.Finish();
}

bool IsToken(std::string_view text) {
  return text.size() >= kMinTokenBytes && text.size() <= kMaxTokenBytes &&
         std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c <= '~'; });
}

bool IsTenant(std::string_view text) {
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  return !text.empty() && text.size() <= kMaxTenantBytes && letter(text.front()) &&
         std::all_of(text.begin(), text.end(),
                     [&](char c) { return letter(c) || c == '.' || c == '_' || c == '-'; });
}

// The next word of `line`, taken off it.
std::string_view TakeWord(std::string_view& line) {
  constexpr std::string_view kSpace = " \t\r";
  line.remove_prefix(std::min(line.find_first_not_of(kSpace), line.size()));
  const std::string_view word = line.substr(0, line.find_first_of(kSpace));
  line.remove_prefix(word.size());
  return word;
}

// All bytes are looked at, whatever they are.
bool Equal(const std::array<std::byte, 32>& a, const std::array<std::byte, 32>& b) {
  std::byte difference{0};
  for (std::size_t i = 0; i < a.size(); ++i) difference |= a[i] ^ b[i];
  return difference == std::byte{0};
}

}  // namespace

absl::StatusOr<TokenTable> TokenTable::Parse(std::string_view text, std::string_view file) {
  TokenTable table;
  for (int number = 1; !text.empty(); ++number) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    if (line.starts_with('#')) continue;
    const std::string_view token = TakeWord(line);
    const std::string_view tenant = TakeWord(line);
    if (token.empty()) continue;
    if (!IsToken(token) || !IsTenant(tenant) || !TakeWord(line).empty()) {
      return MakeError(
          absl::StatusCode::kInvalidArgument, "BAD_TOKEN_FILE",
          absl::StrFormat("%s: line %d: expected a token of %d to %d printable characters and a "
                          "tenant [a-z0-9][a-z0-9._-]{0,62}, found something else",
                          file, number, kMinTokenBytes, kMaxTokenBytes));
    }
    table.entries_.emplace_back(DigestOf(token), std::string(tenant));
  }
  if (table.entries_.empty()) {
    return MakeError(absl::StatusCode::kInvalidArgument, "BAD_TOKEN_FILE",
                     absl::StrFormat("%s: expected a token, found none", file));
  }
  return table;
}

absl::StatusOr<TokenTable> TokenTable::Load(const std::string& path) {
  MASKKV_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxFileBytes));
  return Parse(text, path);
}

absl::StatusOr<std::string> TokenTable::Authenticate(std::string_view authorization) const {
  const bool bearer = authorization.starts_with(kScheme);
  const std::array<std::byte, 32> digest =
      DigestOf(bearer ? authorization.substr(kScheme.size()) : std::string_view());
  const std::string* tenant = nullptr;
  for (const auto& [known, name] : entries_) {
    if (Equal(known, digest)) tenant = &name;
  }
  if (bearer && tenant != nullptr) return *tenant;
  return MakeError(absl::StatusCode::kUnauthenticated, "BAD_TOKEN",
                   "authorization: expected \"Bearer TOKEN\" with a known token, found none");
}

}  // namespace maskkv::decode
