// SPDX-License-Identifier: Apache-2.0
#include "kernels/select/top_k.h"

#include <array>
#include <bit>
#include <cstddef>

#include "kernels/base/multiversion.h"
#include "kernels/base/require.h"

namespace maskkv::kernels {
namespace {

// An unsigned integer that orders as the float does, -0 equal to +0: the sign bit is flipped for
// positive values, all bits for negative ones. Adding zero turns -0 into +0.
std::uint32_t OrderedKey(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value + 0.0F);
  return bits ^ ((bits >> 31) != 0 ? 0xffffffffU : 0x80000000U);
}

// The key of the k-th highest score and how many of its equals belong to the k.
struct Threshold {
  std::uint32_t key;
  std::int64_t ties;
};

// Radix select: 11, 11 and 10 bits from the top; each pass counts the scores that share the digits
// found so far by their next digit, and takes the digit in which the k-th highest lies.
Threshold FindThreshold(std::span<const float> scores, std::int64_t k) {
  constexpr int kDigitBits = 11;
  std::uint32_t prefix = 0;
  std::uint32_t prefix_mask = 0;
  std::int64_t wanted = k;  // rank among the scores that match the prefix
  for (const int shift : {21, 10, 0}) {
    const std::uint32_t digit_mask = (shift == 0 ? 1U << 10 : 1U << kDigitBits) - 1;
    std::array<std::int32_t, 1 << kDigitBits> count{};
    for (const float score : scores) {
      const std::uint32_t key = OrderedKey(score);
      if ((key & prefix_mask) == prefix) ++count[(key >> shift) & digit_mask];
    }
    std::uint32_t digit = digit_mask;
    while (count[digit] < wanted) wanted -= count[digit--];
    prefix |= digit << shift;
    prefix_mask |= digit_mask << shift;
  }
  return {prefix, wanted};
}

}  // namespace

void SelectTopK(std::span<const float> scores, std::int64_t k, std::span<std::int32_t> kept) {
  MASKKV_REQUIRE(k >= 0 && static_cast<std::size_t>(k) <= scores.size(), "k outside [0, n]");
  MASKKV_REQUIRE(kept.size() == static_cast<std::size_t>(k), "kept has another size than k");
  if (k == 0) return;
  Threshold threshold = FindThreshold(scores, k);
  std::size_t next = 0;
  for (std::size_t i = 0; next < kept.size(); ++i) {
    const std::uint32_t key = OrderedKey(scores[i]);
    if (key < threshold.key) continue;
    if (key == threshold.key && threshold.ties-- <= 0) continue;
    kept[next++] = static_cast<std::int32_t>(i);
  }
}

MASKKV_MULTIVERSION
bool AnyNan(std::span<const float> values) {
  std::uint32_t found = 0;
  for (const float value : values) found |= static_cast<std::uint32_t>(value != value);
  return found != 0;
}

}  // namespace maskkv::kernels
