// SPDX-License-Identifier: Apache-2.0
//
// Cosine similarity of two vectors, which tells how far a layer moved its input (layer importance)
// and which rows of a cache went stale. Products of f32 are exact in f64 and are summed in f64 over
// kLanes lanes in a fixed order, so the value is the same on every instruction set. Pure, thread
// safe.
#ifndef MASKKV_KERNELS_NORM_COSINE_H_
#define MASKKV_KERNELS_NORM_COSINE_H_

#include <cstdint>

namespace maskkv::kernels {

// a, b: (n), may alias. Returns a.b / (|a| |b|), clamped to [-1, 1].
// Two zero vectors (and n == 0) are equal: 1. One zero vector: 0. NaN propagates.
double CosineSimilarity(const float* a, const float* b, std::int64_t n);

// The slow twin: one scalar pass.
double CosineSimilarityRef(const float* a, const float* b, std::int64_t n);

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_NORM_COSINE_H_
