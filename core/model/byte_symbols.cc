// SPDX-License-Identifier: Apache-2.0
#include "core/model/byte_symbols.h"

#include <array>

namespace maskkv::model {
namespace {

constexpr int kFirstStandIn = 0x100;
constexpr int kStandIns = 68;

constexpr bool IsPrintable(int byte) {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) ||
         (byte >= 0xae && byte <= 0xff);
}

// Code point of each byte's character.
constexpr std::array<int, 256> MakeCodePoints() {
  std::array<int, 256> points{};
  int next = kFirstStandIn;
  for (int byte = 0; byte < 256; ++byte) {
    points[static_cast<std::size_t>(byte)] = IsPrintable(byte) ? byte : next++;
  }
  return points;
}
constexpr std::array<int, 256> kCodePoints = MakeCodePoints();
static_assert(kCodePoints[' '] == 0x120);

// The byte of each character of the alphabet, -1 for others.
constexpr std::array<int, kFirstStandIn + kStandIns> MakeBytes() {
  std::array<int, kFirstStandIn + kStandIns> bytes{};
  bytes.fill(-1);
  for (int byte = 0; byte < 256; ++byte) {
    bytes[static_cast<std::size_t>(kCodePoints[static_cast<std::size_t>(byte)])] = byte;
  }
  return bytes;
}
constexpr auto kBytes = MakeBytes();

}  // namespace

std::string ByteSymbol(std::uint8_t byte) {
  const int point = kCodePoints[byte];
  if (point < 0x80) return std::string(1, static_cast<char>(point));
  return {static_cast<char>(0xc0 | (point >> 6)), static_cast<char>(0x80 | (point & 0x3f))};
}

std::optional<std::string> BytesOfSymbols(std::string_view text) {
  std::string bytes;
  for (std::size_t at = 0; at < text.size(); ++at) {
    std::size_t point = static_cast<std::uint8_t>(text[at]);
    if (point >= 0x80) {
      // The whole alphabet takes at most two bytes a character.
      if (point < 0xc2 || point > 0xc5 || at + 1 == text.size()) return std::nullopt;
      point = ((point & 0x1fU) << 6) | (static_cast<std::uint8_t>(text[++at]) & 0x3fU);
    }
    if (point >= kBytes.size() || kBytes[point] < 0) return std::nullopt;
    bytes += static_cast<char>(kBytes[point]);
  }
  return bytes;
}

}  // namespace maskkv::model
