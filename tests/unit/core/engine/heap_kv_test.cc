// SPDX-License-Identifier: Apache-2.0
#include "core/engine/heap_kv.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "tests/support/seed.h"

namespace maskkv::engine::heap_kv_test {
namespace {

using ::testing::HasSubstr;

constexpr EntryShape kShape{.layers = 2, .kv_heads = 2, .head_dim = 3};

TEST(HeapKvEntry, RefusesLayersOutOfOrderAndTooManyPairs) {
  HeapKvEntry entry;
  EXPECT_EQ(entry.AllocateLayer(0, std::vector<std::int64_t>{1, 1}).status().code(),
            absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(entry.Begin(kShape, 4).ok());
  EXPECT_EQ(entry.Begin(kShape, 4).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(
      std::string(entry.AllocateLayer(1, std::vector<std::int64_t>{1, 1}).status().message()),
      HasSubstr("expected 0 of 2, found 1"));
  EXPECT_EQ(entry.AllocateLayer(0, std::vector<std::int64_t>{1}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(entry.AllocateLayer(0, std::vector<std::int64_t>{4, 1}).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(entry.AllocateLayer(0, std::vector<std::int64_t>{-1, 1}).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(entry.Finish().code(), absl::StatusCode::kFailedPrecondition);
  entry.CheckInvariants();
}

TEST(HeapKvEntry, RefusesShapesThatMeanNothing) {
  HeapKvEntry entry;
  EXPECT_EQ(entry.Begin({.layers = 0, .kv_heads = 1, .head_dim = 1}, 1).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(entry.Begin(kShape, -1).code(), absl::StatusCode::kInvalidArgument);
}

TEST(HeapKvEntry, GivesBackWhatWasWrittenForRandomShapes) {
  const std::uint64_t seed = maskkv::testing::Seed();
  std::mt19937_64 random(seed);
  for (int run = 0; run < 100; ++run) {
    const EntryShape shape{.layers = static_cast<std::int64_t>(1 + random() % 3),
                           .kv_heads = static_cast<std::int64_t>(1 + random() % 4),
                           .head_dim = static_cast<std::int64_t>(1 + random() % 5),
                           .dtype = static_cast<kernels::DType>(random() % 3)};
    HeapKvEntry entry;
    ASSERT_TRUE(entry.Begin(shape, 1000).ok());
    const std::size_t row_bytes =
        static_cast<std::size_t>(shape.head_dim) * kernels::SizeOf(shape.dtype);
    std::int64_t total = 0;
    unsigned char stamp = 0;
    std::vector<std::vector<std::int64_t>> pairs(static_cast<std::size_t>(shape.layers));
    for (std::int64_t layer = 0; layer < shape.layers; ++layer) {
      auto& counts = pairs[static_cast<std::size_t>(layer)];
      for (std::int64_t head = 0; head < shape.kv_heads; ++head) {
        counts.push_back(static_cast<std::int64_t>(random() % 6));
        total += counts.back();
      }
      const auto extents = entry.AllocateLayer(layer, counts);
      ASSERT_TRUE(extents.ok()) << extents.status();
      for (const HeadExtent& extent : *extents) {
        const std::size_t bytes = static_cast<std::size_t>(extent.pairs) * row_bytes;
        if (bytes == 0) continue;
        std::memset(extent.keys, ++stamp, bytes);
        std::memset(extent.values, ++stamp, bytes);
        ASSERT_EQ(extent.key_scales != nullptr, shape.HasScales());
        for (std::int64_t i = 0; shape.HasScales() && i < extent.pairs; ++i) {
          extent.key_scales[i] = static_cast<float>(stamp);
          extent.value_scales[i] = static_cast<float>(-stamp);
        }
        for (std::int64_t i = 0; i < extent.pairs; ++i) {
          extent.positions[i] = static_cast<std::int32_t>(2 * i);
        }
      }
      entry.CheckInvariants();
    }
    ASSERT_TRUE(entry.Finish().ok());
    EXPECT_EQ(entry.bytes(), total * shape.PairBytes());

    stamp = 0;
    for (std::int64_t layer = 0; layer < shape.layers; ++layer) {
      for (std::int64_t head = 0; head < shape.kv_heads; ++head) {
        const kernels::CachedHead& cached = entry.Layer(layer)[static_cast<std::size_t>(head)];
        ASSERT_EQ(cached.pairs,
                  pairs[static_cast<std::size_t>(layer)][static_cast<std::size_t>(head)]);
        if (cached.pairs == 0) continue;
        const std::vector<unsigned char> keys(static_cast<std::size_t>(cached.pairs) * row_bytes,
                                              ++stamp);
        EXPECT_EQ(std::memcmp(cached.k, keys.data(), keys.size()), 0) << "seed " << seed;
        const std::vector<unsigned char> values(keys.size(), ++stamp);
        EXPECT_EQ(std::memcmp(cached.v, values.data(), values.size()), 0) << "seed " << seed;
        for (std::int64_t i = 0; shape.HasScales() && i < cached.pairs; ++i) {
          EXPECT_EQ(cached.k_scales[i], static_cast<float>(stamp));
          EXPECT_EQ(cached.v_scales[i], static_cast<float>(-stamp));
        }
        EXPECT_EQ(entry.Positions(layer, head).back(), 2 * (cached.pairs - 1));
      }
    }
  }
}

TEST(HeapKvEntryDeathTest, AbortsOnPositionsThatDoNotAscend) {
  HeapKvEntry entry;
  ASSERT_TRUE(entry.Begin({.layers = 1, .kv_heads = 1, .head_dim = 1}, 2).ok());
  const auto extents = entry.AllocateLayer(0, std::vector<std::int64_t>{2});
  ASSERT_TRUE(extents.ok());
  (*extents)[0].positions[0] = 5;
  (*extents)[0].positions[1] = 5;
  EXPECT_DEATH((void)entry.Finish(), "strictly ascend");
}

}  // namespace
}  // namespace maskkv::engine::heap_kv_test
