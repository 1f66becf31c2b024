// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "kernels/sample/gumbel.h"
#include "kernels/sample/philox.h"

namespace maskkv::kernels {

void GumbelNoiseRef(std::uint64_t seed, std::uint32_t position, std::uint32_t step,
                    std::int32_t first_id, std::span<float> noise) {
  for (std::size_t i = 0; i < noise.size(); ++i) {
    const auto id = static_cast<std::uint32_t>(first_id) + static_cast<std::uint32_t>(i);
    const double u = Uniform(seed, position, step, id, PhiloxStream::kTokenNoise);
    noise[i] = static_cast<float>(-std::log(-std::log(u)));
  }
}

}  // namespace maskkv::kernels
