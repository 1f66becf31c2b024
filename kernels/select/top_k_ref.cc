// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <numeric>
#include <vector>

#include "kernels/select/top_k.h"

namespace maskkv::kernels::ref {

void SelectTopK(std::span<const float> scores, std::int64_t k, std::span<std::int32_t> kept) {
  std::vector<std::int32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return scores[static_cast<std::size_t>(a)] > scores[static_cast<std::size_t>(b)];
  });
  std::copy_n(order.begin(), k, kept.begin());
  std::sort(kept.begin(), kept.end());
}

}  // namespace maskkv::kernels::ref
