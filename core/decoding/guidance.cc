// SPDX-License-Identifier: Apache-2.0
#include "core/decoding/guidance.h"

#include <cstddef>

namespace maskkv::decoding {

void Guide(std::span<const float> unconditional, double scale, std::span<float> logits) {
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const auto without = static_cast<double>(unconditional[i]);
    const auto with = static_cast<double>(logits[i]);
    logits[i] = static_cast<float>(without + (scale + 1) * (with - without));
  }
}

}  // namespace maskkv::decoding
