// SPDX-License-Identifier: Apache-2.0
//
// Rotary position embedding, half-split layout: within a head of width d the pair (i, i + d/2) is
// rotated by the angle position * theta^(-2i/d). Angles are computed in f64 and their cosine and
// sine stored in f32 once, so the rotation does not lose digits at large positions; the rotation is
// f32. A RopeTable is immutable after Build and shared freely between threads.
#ifndef MASKKV_KERNELS_ROPE_ROPE_H_
#define MASKKV_KERNELS_ROPE_ROPE_H_

#include <cstdint>
#include <vector>

#include "kernels/base/dtype.h"

namespace maskkv::kernels {

class RopeTable {
 public:
  // A table for positions [0, positions). 4 * positions * head_dim bytes.
  // precision: kBF16 rounds each cosine and sine to the nearest bf16 after its rounding to f32, as
  // published code does that casts them to the activations' type; the rotation stays f32.
  // REQUIRES: theta > 0; head_dim >= 2 and even; positions >= 0.
  static RopeTable Build(double theta, std::int64_t head_dim, std::int64_t positions,
                         DType precision = DType::kF32);

  std::int64_t head_dim() const { return 2 * half_; }
  std::int64_t positions() const { return positions_; }

  // (head_dim / 2) cosines, sines of a position. REQUIRES: 0 <= position < positions().
  const float* Cos(std::int64_t position) const { return cos_.data() + position * half_; }
  const float* Sin(std::int64_t position) const { return sin_.data() + position * half_; }

 private:
  std::int64_t half_ = 0;
  std::int64_t positions_ = 0;
  std::vector<float> cos_;  // (positions, head_dim / 2)
  std::vector<float> sin_;  // (positions, head_dim / 2)
};

// Rotates `heads` heads of every row in place.
// positions: (rows), each in [0, table.positions()); any order, repeats allowed.
// x: (rows, heads * head_dim), row stride ldx >= heads * head_dim. rows == 0 or heads == 0 does
// nothing. (x1, x2) becomes (x1 cos - x2 sin, x2 cos + x1 sin), each product rounded once: the same
// bits on every instruction set. Thread safe for disjoint rows.
void ApplyRope(const RopeTable& table, const std::int32_t* positions, float* x, std::int64_t rows,
               std::int64_t ldx, std::int64_t heads);

// The slow twin: no table, everything in f64, rounded once.
void ApplyRopeRef(double theta, std::int64_t head_dim, const std::int32_t* positions, float* x,
                  std::int64_t rows, std::int64_t ldx, std::int64_t heads);

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_ROPE_ROPE_H_
