// SPDX-License-Identifier: Apache-2.0
#include "kernels/select/top_k.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <vector>

#include "kernels/base/require.h"

namespace maskkv::kernels {

void SelectTopK(std::span<const float> scores, std::int64_t k, std::span<std::int32_t> kept) {
  MASKKV_REQUIRE(k >= 0 && static_cast<std::size_t>(k) <= scores.size(), "k outside [0, n]");
  MASKKV_REQUIRE(kept.size() == static_cast<std::size_t>(k), "kept has another size than k");
  std::vector<std::int32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::nth_element(order.begin(), order.begin() + k, order.end(),
                   [&](std::int32_t a, std::int32_t b) {
                     const float score_a = scores[static_cast<std::size_t>(a)];
                     const float score_b = scores[static_cast<std::size_t>(b)];
                     return score_a > score_b || (score_a == score_b && a < b);
                   });
  std::copy_n(order.begin(), k, kept.begin());
  std::sort(kept.begin(), kept.end());
}

bool AnyNan(std::span<const float> values) {
  return std::any_of(values.begin(), values.end(), [](float value) { return std::isnan(value); });
}

}  // namespace maskkv::kernels
