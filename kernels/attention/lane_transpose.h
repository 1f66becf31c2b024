// SPDX-License-Identifier: Apache-2.0
//
// Rows to lanes and back, by 4 x 4 blocks in 128-bit registers (which every instruction set has).
// Internal to the lanes_*.cc sources, internal linkage for the reason given in lane_kernels.h.
#ifndef MASKKV_KERNELS_ATTENTION_LANE_TRANSPOSE_H_
#define MASKKV_KERNELS_ATTENTION_LANE_TRANSPOSE_H_

#include <cstdint>

#define MASKKV_INLINE inline __attribute__((always_inline))

namespace maskkv::kernels {
namespace {

typedef float Float4 __attribute__((vector_size(16)));
typedef float UnalignedFloat4 __attribute__((vector_size(16), aligned(4), may_alias));

MASKKV_INLINE Float4 Load4(const float* from) {
  return *reinterpret_cast<const UnalignedFloat4*>(from);
}

MASKKV_INLINE void Store4(Float4 value, float* to) {
  *reinterpret_cast<UnalignedFloat4*>(to) = value;
}

MASKKV_INLINE void Transpose4(Float4 (&m)[4]) {
  const Float4 ab_low = __builtin_shufflevector(m[0], m[1], 0, 4, 1, 5);
  const Float4 ab_high = __builtin_shufflevector(m[0], m[1], 2, 6, 3, 7);
  const Float4 cd_low = __builtin_shufflevector(m[2], m[3], 0, 4, 1, 5);
  const Float4 cd_high = __builtin_shufflevector(m[2], m[3], 2, 6, 3, 7);
  m[0] = __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5);
  m[1] = __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7);
  m[2] = __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5);
  m[3] = __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7);
}

// lanes(c, l) = rows[l][c] * scale for l < count, 0 for count <= l < width. lanes is (dims, width).
MASKKV_INLINE void RowsToLanes(const float* const* rows, std::int64_t count, std::int64_t width,
                               std::int64_t dims, float scale, float* lanes) {
  const std::int64_t whole_rows = count / 4 * 4;
  const std::int64_t whole_dims = dims / 4 * 4;
  for (std::int64_t l = 0; l < whole_rows; l += 4) {
    for (std::int64_t c = 0; c < whole_dims; c += 4) {
      Float4 block[4];
      for (int i = 0; i < 4; ++i) block[i] = Load4(rows[l + i] + c) * scale;
      Transpose4(block);
      for (int i = 0; i < 4; ++i) Store4(block[i], lanes + (c + i) * width + l);
    }
    for (std::int64_t c = whole_dims; c < dims; ++c) {
      for (std::int64_t i = l; i < l + 4; ++i) lanes[c * width + i] = rows[i][c] * scale;
    }
  }
  for (std::int64_t c = 0; c < dims && whole_rows < width; ++c) {
    for (std::int64_t l = whole_rows; l < count; ++l) lanes[c * width + l] = rows[l][c] * scale;
    for (std::int64_t l = count; l < width; ++l) lanes[c * width + l] = 0.0F;
  }
}

// rows[l][c] = lanes(c, l) * scale[l] for l < count.
MASKKV_INLINE void LanesToRows(const float* lanes, std::int64_t count, std::int64_t width,
                               std::int64_t dims, const float* scale, float* const* rows) {
  const std::int64_t whole_rows = count / 4 * 4;
  const std::int64_t whole_dims = dims / 4 * 4;
  for (std::int64_t l = 0; l < whole_rows; l += 4) {
    const Float4 scale4 = Load4(scale + l);
    for (std::int64_t c = 0; c < whole_dims; c += 4) {
      Float4 block[4];
      for (int i = 0; i < 4; ++i) block[i] = Load4(lanes + (c + i) * width + l) * scale4;
      Transpose4(block);
      for (int i = 0; i < 4; ++i) Store4(block[i], rows[l + i] + c);
    }
    for (std::int64_t c = whole_dims; c < dims; ++c) {
      for (std::int64_t i = l; i < l + 4; ++i) rows[i][c] = lanes[c * width + i] * scale[i];
    }
  }
  for (std::int64_t l = whole_rows; l < count; ++l) {
    for (std::int64_t c = 0; c < dims; ++c) rows[l][c] = lanes[c * width + l] * scale[l];
  }
}

}  // namespace
}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_ATTENTION_LANE_TRANSPOSE_H_
