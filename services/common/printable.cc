// SPDX-License-Identifier: Apache-2.0
#include "services/common/printable.h"

#include <algorithm>
#include <cstdint>

#include "core/base/check.h"

namespace maskkv::services {
namespace {

// Bytes of the character that `text` starts with; 0 if it starts with none: overlong, a surrogate,
// above U+10FFFF, cut off. REQUIRES: text is not empty.
std::size_t CharacterBytes(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
  const std::uint8_t lead = byte(0);
  if (lead < 0x80) return 1;
  const std::size_t size = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() < size) return 0;
  for (std::size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  const std::uint8_t second = byte(1);
  if (lead == 0xE0 && second < 0xA0) return 0;
  if (lead == 0xED && second > 0x9F) return 0;
  if (lead == 0xF0 && second < 0x90) return 0;
  if (lead == 0xF4 && second > 0x8F) return 0;
  return size;
}

// U+0080 to U+009F, and U+2028, U+2029: line ends and controls beyond ASCII.
bool IsControl(std::string_view character) {
  if (character.size() == 1) return character[0] < ' ' || character[0] == '\x7f';
  if (character.size() == 2) return character[0] == '\xC2' && character[1] <= '\x9F';
  return character == "\xE2\x80\xA8" || character == "\xE2\x80\xA9";
}

}  // namespace

std::string Printable(std::string_view text, std::size_t max_bytes) {
  MASKKV_CHECK(max_bytes >= 3, "no room for an ellipsis");
  std::string result;
  std::size_t cut = 0;  // where "..." still fits
  while (!text.empty()) {
    const std::size_t bytes = CharacterBytes(text);
    std::string_view character = bytes == 0 ? "?" : text.substr(0, bytes);
    if (IsControl(character)) character = " ";
    if (result.size() + character.size() > max_bytes) {
      result.resize(cut);
      return result + "...";
    }
    result += character;
    if (result.size() + 3 <= max_bytes) cut = result.size();
    text.remove_prefix(std::max<std::size_t>(bytes, 1));
  }
  return result;
}

bool IsPrintableAscii(std::string_view text, std::size_t least, std::size_t most) {
  return text.size() >= least && text.size() <= most &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~'; });
}

}  // namespace maskkv::services
