// SPDX-License-Identifier: Apache-2.0
#include "kernels/experts/route.h"

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <vector>

#include "kernels/base/elementary.h"
#include "kernels/base/require.h"

namespace maskkv::kernels {
namespace {

// probabilities = softmax(logits), all NaN if that is not a distribution.
void Softmax(const float* logits, std::int64_t experts, float* probabilities) {
  const float largest = *std::max_element(logits, logits + experts);
  float sum = 0;
  for (std::int64_t e = 0; e < experts; ++e) {
    probabilities[e] = Exp(logits[e] - largest);
    sum += probabilities[e];
  }
  for (std::int64_t e = 0; e < experts; ++e) probabilities[e] /= sum;
}

// The unchosen expert of highest probability, the lowest of equals. Comparisons with NaN are false,
// so it is the first unchosen one where all are NaN.
std::size_t Best(const float* probabilities, const std::vector<char>& is_chosen) {
  auto best = static_cast<std::size_t>(
      std::distance(is_chosen.begin(), std::ranges::find(is_chosen, char{0})));
  for (std::size_t e = best; e < is_chosen.size(); ++e) {
    if (is_chosen[e] == 0 && probabilities[e] > probabilities[best]) best = e;
  }
  return best;
}

}  // namespace

void RouteRows(const RouteShape& shape, const float* logits, std::int64_t rows, std::int64_t ld,
               std::int32_t* chosen, float* weights) {
  const std::int64_t experts = shape.experts;
  MASKKV_REQUIRE(experts >= 1 && shape.per_row >= 1 && shape.per_row <= experts && ld >= experts,
                 "shape");
  std::vector<float> probabilities(static_cast<std::size_t>(experts));
  std::vector<char> is_chosen(static_cast<std::size_t>(experts));
  for (std::int64_t row = 0; row < rows; ++row) {
    Softmax(logits + row * ld, experts, probabilities.data());
    std::fill(is_chosen.begin(), is_chosen.end(), 0);
    for (std::int64_t i = 0; i < shape.per_row; ++i) {
      is_chosen[Best(probabilities.data(), is_chosen)] = 1;
    }
    std::int32_t* const row_chosen = chosen + row * shape.per_row;
    float* const row_weights = weights + row * shape.per_row;
    std::int64_t found = 0;
    float sum = 0;
    for (std::int64_t e = 0; e < experts; ++e) {
      if (is_chosen[static_cast<std::size_t>(e)] == 0) continue;
      row_chosen[found] = static_cast<std::int32_t>(e);
      row_weights[found] = probabilities[static_cast<std::size_t>(e)];
      sum += row_weights[found++];
    }
    if (!shape.renormalised) continue;
    for (std::int64_t i = 0; i < found; ++i) row_weights[i] /= sum;
  }
}

}  // namespace maskkv::kernels
