// SPDX-License-Identifier: Apache-2.0
//
// Whole pairs from fractional claims: the one rounding rule of layers by weight and of heads.
// Floors of the claims are clamped to [low, high]; while pairs are left, the unit below `high` with
// the largest claim x_i - k_i gets one (ties: the lower index); while there are too many, the unit
// above `low` with the smallest claim gives one back (ties: the higher index). Claims are compared
// without rounding, first floor(x_i) - k_i, then the fraction of x_i.
// Pure function, thread safe.
#ifndef MASKKV_CORE_POLICY_CLAIMS_H_
#define MASKKV_CORE_POLICY_CLAIMS_H_

#include <cstdint>
#include <span>
#include <vector>

namespace maskkv::policy {

// The integers in [low, high] with the sum `total` that are nearest to the claims.
// claims (units), each in [0, 2^53]. Returns (units).
// REQUIRES: 0 <= low <= high < 2^31, units * low <= total <= units * high, units <= 2^20.
std::vector<std::int64_t> NearestWithTotal(std::span<const double> claims, std::int64_t low,
                                           std::int64_t high, std::int64_t total);

}  // namespace maskkv::policy

#endif  // MASKKV_CORE_POLICY_CLAIMS_H_
