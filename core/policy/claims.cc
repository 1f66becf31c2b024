// SPDX-License-Identifier: Apache-2.0
#include "core/policy/claims.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/policy/level.h"

namespace maskkv::policy {

std::vector<std::int64_t> NearestWithTotal(std::span<const double> claims, std::int64_t low,
                                           std::int64_t high, std::int64_t total) {
  std::vector<std::int64_t> floors;
  std::vector<double> fractions;
  for (const double claim : claims) {
    floors.push_back(static_cast<std::int64_t>(std::floor(claim)));
    fractions.push_back(claim - std::floor(claim));
  }
  std::vector<std::int32_t> order(claims.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](std::int32_t a, std::int32_t b) {
    return fractions[static_cast<std::size_t>(a)] > fractions[static_cast<std::size_t>(b)];
  });
  return FillToTotal(floors, order, low, high, total);
}

}  // namespace maskkv::policy
