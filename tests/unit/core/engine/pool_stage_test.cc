// SPDX-License-Identifier: Apache-2.0
#include "core/engine/pool_stage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <random>

#include "core/engine/heap_kv.h"
#include "tests/support/seed.h"
#include "tests/support/status_matchers.h"

namespace maskkv::engine::pool_stage_test {
namespace {

using ::maskkv::testing::IsOk;
using ::maskkv::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::int64_t kDim = 3;
constexpr std::int64_t kHeads = 2;

// K of a pair, by layer, head and row, in every column; V is its negative.
float PairValue(std::int64_t layer, std::int64_t head, std::int64_t row) {
  return static_cast<float>(10000 * layer + 1000 * head + row + 1);
}

std::vector<float> LayerKv(std::int64_t layer, std::int64_t rows) {
  std::vector<float> kv;
  for (std::int64_t row = 0; row < rows; ++row) {
    for (const float sign : {1.0F, -1.0F}) {
      for (std::int64_t head = 0; head < kHeads; ++head) {
        kv.insert(kv.end(), kDim, sign * PairValue(layer, head, row));
      }
    }
  }
  return kv;
}

TEST(PoolStage, HoldsTheBestOfAllLayersAndWritesThem) {
  kernels::WorkerPool workers(2);
  std::mt19937_64 random(testing::Seed());
  for (int round = 0; round < 50; ++round) {
    const auto layers = static_cast<std::int64_t>(1 + random() % 5);
    const auto prompt = static_cast<std::int64_t>(random() % 20);
    const std::int64_t keys = prompt + 1;
    const auto capacity = static_cast<std::int64_t>(random() % 40);
    const EntryShape shape{layers, kHeads, kDim, kernels::DType::kF32};
    PoolStage stage(shape, capacity);
    policy::PairPool expected(kHeads, capacity);
    std::vector<std::vector<float>> masks;
    for (std::int64_t layer = 0; layer < layers; ++layer) {
      std::vector<float> voting(static_cast<std::size_t>(kHeads * keys));
      for (float& score : voting) score = static_cast<float>(random() % 7);
      std::vector<float>& mask = masks.emplace_back(voting.size());
      for (float& score : mask) score = static_cast<float>(random() % 100);
      ASSERT_THAT(expected.AddLayer(voting, keys, prompt), IsOk());
      ASSERT_THAT(stage.AddLayer(workers, {voting, mask}, prompt, LayerKv(layer, keys).data()),
                  IsOk());
      EXPECT_LE(stage.bytes(), 2 * capacity * kDim * std::int64_t{sizeof(float)});
    }
    std::vector<std::int32_t> positions;
    for (std::int64_t row = 0; row < keys; ++row) {
      positions.push_back(static_cast<std::int32_t>(3 * row + 1));
    }
    HeapKvEntry entry;
    ASSERT_THAT(entry.Begin(shape, capacity), IsOk());
    for (std::int64_t layer = 0; layer < layers; ++layer) {
      const KeptLayer kept = stage.Kept(layer);
      for (std::int64_t head = 0; head < kHeads; ++head) {
        const auto h = static_cast<std::size_t>(head);
        EXPECT_EQ(kept.rows[h], expected.Kept(layer, head));
        double mass = 0, all = 0;
        const float* scores = masks[static_cast<std::size_t>(layer)].data() + head * keys;
        for (const std::int32_t row : kept.rows[h]) mass += static_cast<double>(scores[row]);
        for (std::int64_t row = 0; row < prompt; ++row) all += static_cast<double>(scores[row]);
        EXPECT_EQ(kept.kept_mass[h], mass);
        EXPECT_EQ(kept.prompt_mass[h], all);
      }
      ASSERT_THAT(stage.WriteLayer(positions, entry), IsOk());
    }
    EXPECT_EQ(stage.bytes(), 0);
    ASSERT_THAT(entry.Finish(), IsOk());
    entry.CheckInvariants();
    for (std::int64_t layer = 0; layer < layers; ++layer) {
      for (std::int64_t head = 0; head < kHeads; ++head) {
        const std::vector<std::int32_t> rows = expected.Kept(layer, head);
        const kernels::CachedHead& stored = entry.Layer(layer)[static_cast<std::size_t>(head)];
        ASSERT_EQ(stored.pairs, std::ssize(rows));
        for (std::size_t i = 0; i < rows.size(); ++i) {
          EXPECT_EQ(entry.Positions(layer, head)[i], 3 * rows[i] + 1);
          for (std::size_t c = 0; c < static_cast<std::size_t>(kDim); ++c) {
            const std::size_t at = i * static_cast<std::size_t>(kDim) + c;
            EXPECT_EQ(static_cast<const float*>(stored.k)[at], PairValue(layer, head, rows[i]));
            EXPECT_EQ(static_cast<const float*>(stored.v)[at], -PairValue(layer, head, rows[i]));
          }
        }
      }
    }
  }
}

TEST(PoolStage, PreferenceIsTheVoters) {
  kernels::WorkerPool workers(1);
  PoolStage stage({1, kHeads, kDim, kernels::DType::kF32}, 1);
  const std::vector<float> voting{3, 1, 1, 1}, masks{1, 1, 2, 2};
  ASSERT_THAT(stage.AddLayer(workers, {voting, masks}, 1, LayerKv(0, 2).data()), IsOk());
  EXPECT_THAT(stage.Kept(0).preference, ElementsAre(0.75, 0.5));
  EXPECT_THAT(stage.Kept(0).prompt_mass, ElementsAre(1, 2));
  EXPECT_THAT(stage.Kept(0).kept_mass, ElementsAre(1, 0));
}

TEST(PoolStage, BrokenScoresAreDataLoss) {
  kernels::WorkerPool workers(1);
  PoolStage stage({1, kHeads, kDim, kernels::DType::kF32}, 4);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> good{1, 1, 1, 1}, bad{1, 1, nan, 1};
  const std::vector<float> kv = LayerKv(0, 2);
  for (const LayerScores& scores : {LayerScores{good, bad}, LayerScores{bad, good}}) {
    EXPECT_THAT(stage.AddLayer(workers, scores, 1, kv.data()),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("layer 0")));
  }
}

}  // namespace
}  // namespace maskkv::engine::pool_stage_test
