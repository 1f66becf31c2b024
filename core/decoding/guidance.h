// SPDX-License-Identifier: Apache-2.0
//
// Classifier-free guidance: logits with the prompt pushed away from those without it. Pure.
#ifndef MASKKV_CORE_DECODING_GUIDANCE_H_
#define MASKKV_CORE_DECODING_GUIDANCE_H_

#include <span>

namespace maskkv::decoding {

// The largest scale. Logits are tens apart: beyond it nothing but the difference counts.
inline constexpr double kMostGuidance = 1000;

// logits = unconditional + (scale + 1) * (logits - unconditional), each computed in f64 and rounded
// once. Both (vocabulary). NaN where an infinity meets one.
void Guide(std::span<const float> unconditional, double scale, std::span<float> logits);

}  // namespace maskkv::decoding

#endif  // MASKKV_CORE_DECODING_GUIDANCE_H_
