// SPDX-License-Identifier: Apache-2.0
#include "core/policy/level.h"

#include <algorithm>

#include "core/base/check.h"

namespace maskkv::policy {
namespace {

struct Bounds {
  std::int64_t low;
  std::int64_t high;

  std::int64_t At(std::int64_t base, std::int64_t level) const {
    return std::clamp(base + level, low, high);
  }
  std::int64_t Sum(std::span<const std::int64_t> bases, std::int64_t level) const {
    std::int64_t sum = 0;
    for (const std::int64_t base : bases) sum += At(base, level);
    return sum;
  }
};

// The largest level with a sum of at most `total`, or one at which every unit is at `high`.
std::int64_t HighestLevel(std::span<const std::int64_t> bases, Bounds bounds, std::int64_t total) {
  const auto [smallest, largest] = std::minmax_element(bases.begin(), bases.end());
  std::int64_t fits = bounds.low - *largest;          // every unit at `low`
  std::int64_t beyond = bounds.high - *smallest + 1;  // every unit at `high`
  while (beyond - fits > 1) {
    const std::int64_t middle = fits + (beyond - fits) / 2;
    (bounds.Sum(bases, middle) <= total ? fits : beyond) = middle;
  }
  return fits;
}

}  // namespace

std::vector<std::int64_t> FillToTotal(std::span<const std::int64_t> bases,
                                      std::span<const std::int32_t> order, std::int64_t low,
                                      std::int64_t high, std::int64_t total) {
  const auto units = static_cast<std::int64_t>(bases.size());
  MASKKV_CHECK(order.size() == bases.size(), "one place in the order for every unit");
  MASKKV_CHECK(units * low <= total && total <= units * high, "a total that the bounds allow");
  if (units == 0) return {};
  const Bounds bounds{low, high};
  const std::int64_t level = HighestLevel(bases, bounds, total);
  std::vector<std::int64_t> filled;
  filled.reserve(bases.size());
  std::int64_t left = total;
  for (const std::int64_t base : bases) {
    filled.push_back(bounds.At(base, level));
    left -= filled.back();
  }
  for (const std::int32_t unit : order) {
    if (left == 0) break;
    const auto i = static_cast<std::size_t>(unit);
    const std::int64_t next = bounds.At(bases[i], level + 1);
    left -= next - filled[i];
    filled[i] = next;
  }
  MASKKV_CHECK(left == 0, "the next level raises more units than pairs are left");
  return filled;
}

}  // namespace maskkv::policy
