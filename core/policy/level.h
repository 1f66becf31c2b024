// SPDX-License-Identifier: Apache-2.0
//
// What both allocations do with the pairs that floors and caps leave over, in closed form. Units
// (layers, or heads) start at integer bases. Raising or lowering all of them by one level at a
// time, each stopping at the bounds, approaches a total; the last level is given to some units
// only. Doing this pair by pair would take as many steps as there are pairs.
//
// Pure functions, thread safe.
#ifndef MASKKV_CORE_POLICY_LEVEL_H_
#define MASKKV_CORE_POLICY_LEVEL_H_

#include <cstdint>
#include <span>
#include <vector>

namespace maskkv::policy {

// Each k_i = min(max(base_i + t, low), high), for the largest t whose sum is at most `total`; then
// the first units of `order` that the next level would raise get one more each, until the sum is
// `total`.
//
// bases  (units), each in [0, 2^53].
// order  (units), a permutation of [0, units): who comes first when a level is not for all.
// Returns: (units), with sum `total` and low <= k_i <= high.
// REQUIRES: 0 <= low <= high < 2^31, units * low <= total <= units * high, units <= 2^20.
std::vector<std::int64_t> FillToTotal(std::span<const std::int64_t> bases,
                                      std::span<const std::int32_t> order, std::int64_t low,
                                      std::int64_t high, std::int64_t total);

}  // namespace maskkv::policy

#endif  // MASKKV_CORE_POLICY_LEVEL_H_
