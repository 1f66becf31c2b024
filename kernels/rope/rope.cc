// SPDX-License-Identifier: Apache-2.0
#include "kernels/rope/rope.h"

#include <cmath>

#include "kernels/base/multiversion.h"
#include "kernels/base/require.h"

namespace maskkv::kernels {
namespace {

// One head: a (half), b (half) are its two halves.
MASKKV_MULTIVERSION void Rotate(const float* cosine, const float* sine, std::int64_t half, float* a,
                                float* b) {
  for (std::int64_t i = 0; i < half; ++i) {
    const float x1 = a[i];
    const float x2 = b[i];
    a[i] = x1 * cosine[i] - x2 * sine[i];
    b[i] = x2 * cosine[i] + x1 * sine[i];
  }
}

}  // namespace

RopeTable RopeTable::Build(double theta, std::int64_t head_dim, std::int64_t positions,
                           DType precision) {
  MASKKV_REQUIRE(theta > 0.0 && head_dim >= 2 && head_dim % 2 == 0 && positions >= 0, "shape");
  RopeTable table;
  table.half_ = head_dim / 2;
  table.positions_ = positions;
  table.cos_.resize(static_cast<std::size_t>(positions * table.half_));
  table.sin_.resize(static_cast<std::size_t>(positions * table.half_));
  for (std::int64_t i = 0; i < table.half_; ++i) {
    const double frequency =
        std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
    for (std::int64_t position = 0; position < positions; ++position) {
      const double angle = static_cast<double>(position) * frequency;
      const auto at = static_cast<std::size_t>(position * table.half_ + i);
      table.cos_[at] = static_cast<float>(std::cos(angle));
      table.sin_[at] = static_cast<float>(std::sin(angle));
    }
  }
  if (precision == DType::kBF16) {
    RoundToBf16InPlace(table.cos_.data(), positions * table.half_);
    RoundToBf16InPlace(table.sin_.data(), positions * table.half_);
  }
  return table;
}

void ApplyRope(const RopeTable& table, const std::int32_t* positions, float* x, std::int64_t rows,
               std::int64_t ldx, std::int64_t heads) {
  const std::int64_t head_dim = table.head_dim();
  MASKKV_REQUIRE(ldx >= heads * head_dim, "rows overlap");
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t position = positions[row];
    MASKKV_REQUIRE(position >= 0 && position < table.positions(), "position outside the table");
    for (std::int64_t head = 0; head < heads; ++head) {
      float* const a = x + row * ldx + head * head_dim;
      Rotate(table.Cos(position), table.Sin(position), head_dim / 2, a, a + head_dim / 2);
    }
  }
}

}  // namespace maskkv::kernels
