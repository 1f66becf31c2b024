// SPDX-License-Identifier: Apache-2.0
#include "kernels/compact/gather.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/base/cached_row.h"
#include "tests/support/seed.h"

namespace maskkv::kernels {
namespace {

struct Rows {
  Rows(std::int64_t count, std::int64_t leading) : ld(leading) {
    std::mt19937_64 random(4);
    std::normal_distribution<float> normal;
    values.resize(static_cast<std::size_t>(count * ld));
    for (float& value : values) value = normal(random);
  }
  float At(std::int64_t row, std::int64_t c) const {
    return values[static_cast<std::size_t>(row * ld + c)];
  }
  std::vector<float> values;
  std::int64_t ld;
};

TEST(GatherRows, CopiesTheChosenRowsOfAStridedHead) {
  const Rows rows(50, 21);
  const std::vector<std::int32_t> kept = {0, 3, 4, 49, 7, 7};
  for (const std::int64_t head_dim : {1, 6, 16}) {
    std::vector<float> out(kept.size() * static_cast<std::size_t>(head_dim) + 1, -5.0F);
    GatherRows(rows.values.data() + 2, rows.ld, head_dim, kept, DType::kF32, out.data(), nullptr);
    std::size_t at = 0;
    for (const std::int32_t row : kept) {
      for (std::int64_t c = 0; c < head_dim; ++c) EXPECT_EQ(out[at++], rows.At(row, c + 2));
    }
    EXPECT_EQ(out[at], -5.0F);
  }
}

TEST(GatherRows, RoundsToTheNearestBf16) {
  const Rows rows(50, 21);
  const std::vector<std::int32_t> kept = {1, 2, 48};
  for (const std::int64_t head_dim : {1, 6, 21}) {
    std::vector<Bf16> out(kept.size() * static_cast<std::size_t>(head_dim) + 1, Bf16{0x1234});
    GatherRows(rows.values.data(), rows.ld, head_dim, kept, DType::kBF16, out.data(), nullptr);
    std::size_t at = 0;
    for (const std::int32_t row : kept) {
      for (std::int64_t c = 0; c < head_dim; ++c) {
        EXPECT_EQ(out[at++].bits, ToBf16(rows.At(row, c)).bits);
      }
    }
    EXPECT_EQ(out[at].bits, 0x1234);
  }
}

TEST(GatherRows, QuantisesEachRowWithAScaleOfItsOwn) {
  const Rows rows(50, 21);
  const std::vector<std::int32_t> kept = {1, 2, 48, 2};
  for (const std::int64_t head_dim : {1, 6, 18}) {
    std::vector<std::int8_t> out(kept.size() * static_cast<std::size_t>(head_dim) + 1, 99);
    std::vector<float> scales(kept.size() + 1, -3.0F);
    GatherRows(rows.values.data() + 3, rows.ld, head_dim, kept, DType::kInt8, out.data(),
               scales.data());
    std::size_t at = 0;
    for (std::size_t i = 0; i < kept.size(); ++i) {
      std::vector<std::int8_t> alone(static_cast<std::size_t>(head_dim));
      const float* row = rows.values.data() + 3 + kept[i] * rows.ld;
      EXPECT_EQ(scales[i], QuantiseCachedRow(row, head_dim, alone.data()));
      for (const std::int8_t element : alone) EXPECT_EQ(out[at++], element);
    }
    EXPECT_EQ(out[at], 99);
    EXPECT_EQ(scales.back(), -3.0F);
  }
}

TEST(GatherRows, EqualsTheTwinOnRandomShapes) {
  std::mt19937_64 random(maskkv::testing::Seed());
  const auto up_to = [&](std::int64_t most) {
    return 1 + static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(most));
  };
  for (int round = 0; round < 200; ++round) {
    const std::int64_t head_dim = up_to(130), count = up_to(40);
    const Rows rows(count, head_dim + up_to(20));
    std::vector<std::int32_t> kept(static_cast<std::size_t>(up_to(30)));
    for (std::int32_t& row : kept) row = static_cast<std::int32_t>(up_to(count) - 1);
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kInt8}) {
      const std::size_t bytes = kept.size() * static_cast<std::size_t>(head_dim) * SizeOf(dtype);
      std::vector<std::byte> ours(bytes), twins(bytes);
      std::vector<float> scales(kept.size()), twin_scales(kept.size());
      const float* const head = rows.values.data();
      GatherRows(head, rows.ld, head_dim, kept, dtype, ours.data(), scales.data());
      GatherRowsRef(head, rows.ld, head_dim, kept, dtype, twins.data(), twin_scales.data());
      EXPECT_EQ(ours, twins) << Name(dtype) << " " << head_dim;
      EXPECT_EQ(scales, twin_scales);
    }
  }
}

TEST(GatherRows, TouchesNothingWhenNothingIsKept) {
  GatherRows(nullptr, 8, 8, {}, DType::kF32, nullptr, nullptr);
}

}  // namespace
}  // namespace maskkv::kernels
