// SPDX-License-Identifier: Apache-2.0
#include "core/model/footprint.h"

#include <gtest/gtest.h>

#include "tests/unit/core/model/published_configs.h"

namespace maskkv::model {
namespace {

using kernels::DType;

constexpr Footprint::Types kBf16{DType::kBF16, DType::kBF16};
constexpr std::int64_t kKiB = 1 << 10, kMiB = 1 << 20, kGiB = 1 << 30;

Footprint Of(const nlohmann::json& config) {
  return Footprint(*ParseModelConfig(config.dump(), "config.json"));
}

TEST(Footprint, OfLlada8BIsThePublishedOne) {
  const Footprint llada = Of(Llada8B());
  EXPECT_EQ(llada.parameters(), 8'015'581'184);
  EXPECT_EQ(llada.KvBytesAPosition(DType::kBF16), 512 * kKiB);
  EXPECT_EQ(llada.KvBytes(32768, DType::kBF16), 16 * kGiB);
  EXPECT_EQ(llada.KvBytes(256, DType::kBF16), 128 * kMiB);
  EXPECT_EQ(llada.KvBytesAPosition(DType::kF32), 1024 * kKiB);
  EXPECT_EQ(llada.KvBytesAPosition(DType::kInt8), 264 * kKiB);  // 128 bytes and a scale
}

TEST(Footprint, OfDream7BIsThePublishedOne) {
  const Footprint dream = Of(Dream7B());
  EXPECT_EQ(dream.parameters(), 7'615'616'512);
  EXPECT_EQ(dream.KvBytesAPosition(DType::kBF16), 56 * kKiB);
  EXPECT_EQ(dream.KvBytes(32768, DType::kBF16), 7 * kGiB / 4);
  EXPECT_EQ(dream.KvBytes(256, DType::kBF16), 14 * kMiB);
}

TEST(Footprint, PacksMatricesInTheComputeTypeAndVectorsInF32) {
  // hidden 8, 2 layers, FFN 12, 10 rows of vocabulary: attention, FFN and the head; 5 norms.
  const std::int64_t matrices = 2 * (4 * 8 * 8 + 3 * 8 * 12) + 10 * 8, vectors = 5 * 8;
  const Footprint small = Of(SmallConfig());
  EXPECT_EQ(small.PackedBytes(DType::kF32), 4 * (matrices + vectors));
  EXPECT_EQ(small.PackedBytes(DType::kBF16), 2 * matrices + 4 * vectors);
  // A byte a weight and 8 bytes a row: query, key, value, output, gate, up, down; the head.
  const std::int64_t rows = 2 * (4 * 8 + 2 * 12 + 8) + 10;
  EXPECT_EQ(small.PackedBytes(DType::kInt8), matrices + 8 * rows + 4 * vectors);
  nlohmann::json tied = SmallConfig();
  tied["weight_tying"] = true;
  EXPECT_EQ(Of(tied).PackedBytes(DType::kF32), 4 * (matrices + vectors));
  EXPECT_EQ(Of(tied).parameters(), matrices + vectors);
  EXPECT_EQ(small.parameters(), matrices + vectors + 10 * 8);
}

TEST(Footprint, APeakIsWhatItsHeaderSays) {
  const Footprint small = Of(SmallConfig());  // 2 heads of width 4
  const std::int64_t row = 4 * (8 + 2 * 8 + 2 + 4);
  const std::int64_t pair = 2 * 2 * (2 * 4 * 2 + 4);  // both layers and heads
  const std::int64_t packed = small.PackedBytes(DType::kBF16);
  EXPECT_EQ(small.PeakBytes(100, 32, 1000, kBf16), packed + 132 * row + 100 * pair);
  EXPECT_EQ(small.PeakBytes(100, 32, 7, kBf16), packed + 132 * row + 7 * pair);
  EXPECT_EQ(small.PeakBytes(0, 1, 7, kBf16), packed + row);
  // Pairs stay bf16 where weights are int8.
  EXPECT_EQ(small.PeakBytes(100, 32, 7, {DType::kInt8, DType::kBF16}),
            small.PackedBytes(DType::kInt8) + 132 * row + 7 * pair);
  // A key and a value of 4 bytes, their scales, a position.
  EXPECT_EQ(small.PeakBytes(100, 32, 7, {DType::kBF16, DType::kInt8}),
            packed + 132 * row + 7 * 2 * 2 * (2 * (4 + 4) + 4));
}

TEST(Footprint, TheLargestPromptFitsAndTheNextDoesNot) {
  const Footprint dream = Of(Dream7B());
  for (const std::int64_t bytes : {20 * kGiB, 32 * kGiB, 64 * kGiB}) {
    for (const std::int64_t pairs : {std::int64_t{1}, std::int64_t{256}, Footprint::kMaxPrompt}) {
      const std::int64_t largest = dream.LargestPrompt(bytes, 32, pairs, kBf16);
      EXPECT_GT(largest, 0);
      EXPECT_LE(dream.PeakBytes(largest, 32, pairs, kBf16), bytes);
      EXPECT_GT(dream.PeakBytes(largest + 1, 32, pairs, kBf16), bytes);
    }
  }
  EXPECT_GT(dream.LargestPrompt(32 * kGiB, 32, 256, kBf16),
            2 * dream.LargestPrompt(32 * kGiB, 32, Footprint::kMaxPrompt, kBf16));
  EXPECT_EQ(dream.LargestPrompt(kGiB, 32, 256, kBf16), -1);
  EXPECT_EQ(dream.LargestPrompt(INT64_MAX, 32, 256, kBf16), Footprint::kMaxPrompt);
}

}  // namespace
}  // namespace maskkv::model
