// SPDX-License-Identifier: Apache-2.0
#include "core/model/utf8.h"

#include <cstdint>

namespace maskkv::model {
namespace {

// What may follow a leading byte: the number of continuation bytes and the range of the first one
// (all others are 80..BF). Zero bytes for what leads nothing.
struct Lead {
  std::size_t continuations;
  std::uint8_t low = 0x80;
  std::uint8_t high = 0xbf;
};

Lead LeadOf(std::uint8_t byte) {
  if (byte < 0xc2) return {0};
  if (byte < 0xe0) return {1};
  if (byte == 0xe0) return {2, 0xa0, 0xbf};
  if (byte == 0xed) return {2, 0x80, 0x9f};
  if (byte < 0xf0) return {2};
  if (byte == 0xf0) return {3, 0x90, 0xbf};
  if (byte < 0xf4) return {3};
  if (byte == 0xf4) return {3, 0x80, 0x8f};
  return {0};
}

std::uint8_t ByteAt(std::string_view text, std::size_t at) {
  return static_cast<std::uint8_t>(text[at]);
}

// Python's str.isspace beyond ASCII, in UTF-8. No member ends another, so a suffix is a character.
constexpr std::string_view kWide[] = {
    "\xc2\x85",     "\xc2\xa0",     "\xe1\x9a\x80", "\xe2\x80\x80", "\xe2\x80\x81",
    "\xe2\x80\x82", "\xe2\x80\x83", "\xe2\x80\x84", "\xe2\x80\x85", "\xe2\x80\x86",
    "\xe2\x80\x87", "\xe2\x80\x88", "\xe2\x80\x89", "\xe2\x80\x8a", "\xe2\x80\xa8",
    "\xe2\x80\xa9", "\xe2\x80\xaf", "\xe2\x81\x9f", "\xe3\x80\x80"};

bool IsNarrowSpace(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r') || (c >= '\x1c' && c <= '\x1f');
}

// The length of the white space character that `text` begins or ends with, else 0.
std::size_t SpaceAtFront(std::string_view text) {
  if (!text.empty() && IsNarrowSpace(text.front())) return 1;
  for (const std::string_view space : kWide) {
    if (text.starts_with(space)) return space.size();
  }
  return 0;
}

std::size_t SpaceAtBack(std::string_view text) {
  if (!text.empty() && IsNarrowSpace(text.back())) return 1;
  for (const std::string_view space : kWide) {
    if (text.ends_with(space)) return space.size();
  }
  return 0;
}

}  // namespace

Utf8Sequence ReadUtf8(std::string_view text) {
  using Kind = Utf8Sequence::Kind;
  const std::uint8_t first = ByteAt(text, 0);
  if (first < 0x80) return {Kind::kCharacter, 1};
  const Lead lead = LeadOf(first);
  if (lead.continuations == 0) return {Kind::kInvalid, 1};
  for (std::size_t i = 1; i <= lead.continuations; ++i) {
    if (i == text.size()) return {Kind::kIncomplete, i};
    const std::uint8_t byte = ByteAt(text, i);
    const bool fits = i == 1 ? byte >= lead.low && byte <= lead.high : (byte & 0xc0U) == 0x80U;
    if (!fits) return {Kind::kInvalid, i};
  }
  return {Kind::kCharacter, lead.continuations + 1};
}

std::optional<std::size_t> FindInvalidUtf8(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    const Utf8Sequence next = ReadUtf8(text.substr(at));
    if (next.kind != Utf8Sequence::Kind::kCharacter) return at;
    at += next.length;
  }
  return std::nullopt;
}

std::size_t AppendAsUtf8(std::string_view text, bool at_end, std::string& out) {
  std::size_t at = 0;
  while (at < text.size()) {
    const Utf8Sequence next = ReadUtf8(text.substr(at));
    if (next.kind == Utf8Sequence::Kind::kIncomplete && !at_end) break;
    out +=
        next.kind == Utf8Sequence::Kind::kCharacter ? text.substr(at, next.length) : kReplacement;
    at += next.length;
  }
  return at;
}

std::string_view StripWhiteSpace(std::string_view text) {
  while (const std::size_t length = SpaceAtFront(text)) text.remove_prefix(length);
  while (const std::size_t length = SpaceAtBack(text)) text.remove_suffix(length);
  return text;
}

}  // namespace maskkv::model
