// SPDX-License-Identifier: Apache-2.0
#include "kernels/head/vocab_head_ref.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/gemm/matmul_ref.h"

namespace maskkv::kernels {

RefChoice ChooseTokenRef(const float* hidden, std::int64_t in, const float* w,
                         std::int64_t vocabulary, DType compute,
                         std::span<const std::int32_t> forbidden) {
  std::vector<double> logits(static_cast<std::size_t>(vocabulary));
  std::vector<double> magnitudes(logits.size());
  MatMulRef(hidden, 1, in, w, vocabulary, compute, logits.data(), magnitudes.data());
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  RefChoice choice{-1, -kInfinity, 0.0, kInfinity, 0.0};
  for (std::size_t id = 0; id < logits.size(); ++id) {
    const auto signed_id = static_cast<std::int32_t>(id);
    if (std::ranges::find(forbidden, signed_id) != forbidden.end()) {
      logits[id] = -kInfinity;
      continue;
    }
    choice.largest_magnitude = std::max(choice.largest_magnitude, magnitudes[id]);
    if (choice.token < 0 || logits[id] > choice.logit) {
      choice.token = signed_id;
      choice.logit = logits[id];
    }
  }
  double sum = 0.0;
  for (std::size_t id = 0; id < logits.size(); ++id) {
    sum += std::exp(logits[id] - choice.logit);
    if (static_cast<std::int32_t>(id) != choice.token) {
      choice.margin = std::min(choice.margin, choice.logit - logits[id]);
    }
  }
  choice.confidence = 1.0 / sum;
  return choice;
}

}  // namespace maskkv::kernels
