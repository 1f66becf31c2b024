// SPDX-License-Identifier: Apache-2.0
//
// Gumbel noise of the vocabulary: g = -ln(-ln u), u = Uniform(seed, position, step, id,
// kTokenNoise), in f32 with the logarithm of kernels/base/elementary.h, so every machine draws the
// same noise. arg-max(logit + T g) samples softmax(logits / T). Pure, thread safe.
#ifndef MASKKV_KERNELS_SAMPLE_GUMBEL_H_
#define MASKKV_KERNELS_SAMPLE_GUMBEL_H_

#include <cstdint>
#include <span>

namespace maskkv::kernels {

// noise[i] = g of vocabulary id first_id + i. An empty span does nothing. REQUIRES: first_id >= 0.
// Values lie in [-2.82, 16.64]; against the exact logarithms of the f32 u the absolute error is at
// most 2^-20 (all 2^23 values of u are tested).
void GumbelNoise(std::uint64_t seed, std::uint32_t position, std::uint32_t step,
                 std::int32_t first_id, std::span<float> noise);

// The slow twin: block by block, the C library's logarithm in f64, rounded once.
void GumbelNoiseRef(std::uint64_t seed, std::uint32_t position, std::uint32_t step,
                    std::int32_t first_id, std::span<float> noise);

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_SAMPLE_GUMBEL_H_
