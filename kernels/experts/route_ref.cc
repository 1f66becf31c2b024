// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/experts/route.h"

namespace maskkv::kernels {

void RouteRowsRef(const RouteShape& shape, const float* logits, std::int64_t rows, std::int64_t ld,
                  std::int32_t* chosen, float* weights) {
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::vector<double> x(logits + row * ld, logits + row * ld + shape.experts);
    std::vector<std::int32_t> order(x.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
      return x[static_cast<std::size_t>(a)] > x[static_cast<std::size_t>(b)];
    });
    double all = 0, of_chosen = 0;
    for (const double value : x) all += std::exp(value - x[static_cast<std::size_t>(order[0])]);
    std::sort(order.begin(), order.begin() + shape.per_row);
    std::vector<double> shares;
    for (std::int64_t i = 0; i < shape.per_row; ++i) {
      const double logit = x[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])];
      shares.push_back(std::exp(logit - *std::max_element(x.begin(), x.end())) / all);
      of_chosen += shares.back();
    }
    for (std::int64_t i = 0; i < shape.per_row; ++i) {
      const auto at = static_cast<std::size_t>(i);
      chosen[row * shape.per_row + i] = order[at];
      weights[row * shape.per_row + i] =
          static_cast<float>(shape.renormalised ? shares[at] / of_chosen : shares[at]);
    }
  }
}

}  // namespace maskkv::kernels
