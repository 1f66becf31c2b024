// SPDX-License-Identifier: Apache-2.0
//
// A block of every family against its slow twin, and what its rows depend on.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/transformer/transformer.h"
#include "tests/support/closeness.h"
#include "tests/support/seed.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/core/model/family_checkpoints.h"
#include "tests/unit/core/transformer/block_reference.h"

namespace maskkv::transformer {
namespace {

using maskkv::testing::AllWithin;
using maskkv::testing::NormalValues;

constexpr std::int64_t kPositions = 400;

class BlockTest : public ::testing::TestWithParam<std::string> {
 protected:
  BlockTest() { model::WriteRandomCheckpoint(folder_, model::FamilyConfig(GetParam()), 1); }
  model::Checkpoint Open() const { return *model::Checkpoint::Open(folder_.path()); }
  Weights Load(kernels::DType dtype, kernels::WorkerPool& pool) const {
    return *Weights::Load(Open(), dtype, pool);
  }

  model::TemporaryFolder folder_;
};

// Rows that see each other, through one block.
std::vector<float> RunBlock(Transformer& transformer, std::int64_t layer, std::vector<float> hidden,
                            const std::vector<std::int32_t>& positions, double scale = 1) {
  const auto rope = transformer.Rope(scale, kPositions);
  const auto rows = static_cast<std::int64_t>(positions.size());
  const std::int64_t ld = 2 * transformer.kv_width();
  std::vector<float> kv(static_cast<std::size_t>(rows * ld));
  const RopeRun run{rows, rope.get()};
  transformer.ProjectKeysValues(layer, hidden.data(), rows, positions.data(), {&run, 1}, kv.data());
  const AttentionSource source{.rows = rows,
                               .rope = rope.get(),
                               .keys = kv.data(),
                               .values = kv.data() + transformer.kv_width(),
                               .ldkv = ld,
                               .own_rows = rows,
                               .cached = {},
                               .cached_dtype = kernels::DType::kF32,
                               .log_sum_exp = nullptr};
  transformer.Advance(layer, hidden.data(), rows, positions.data(), {&source, 1});
  return hidden;
}

TEST_P(BlockTest, StaysWithinTheRunningErrorOfItsSlowTwin) {
  kernels::WorkerPool pool(2);
  const Weights weights = Load(kernels::DType::kF32, pool);
  Transformer transformer(weights, pool, kPositions);
  const model::Checkpoint checkpoint = Open();
  const std::vector<std::int32_t> positions = {0, 1, 2, 3, 40, 41, 399};
  const auto width = static_cast<std::size_t>(transformer.hidden());
  for (std::int64_t layer = 0; layer < transformer.config().layers; ++layer) {
    const std::vector<float> hidden = NormalValues(
        static_cast<std::int64_t>(positions.size() * width), static_cast<std::uint64_t>(layer));
    std::vector<Row> rows(positions.size());
    for (std::size_t i = 0; i < hidden.size(); ++i) rows[i / width].push_back({hidden[i], 0});
    bool ambiguous = false;
    std::vector<double> expected, bounds;
    for (const Row& row : ReferenceBlock(checkpoint, layer, rows, positions, ambiguous)) {
      for (const Bounded& element : row) {
        expected.push_back(element.value);
        bounds.push_back(element.error);
      }
    }
    ASSERT_FALSE(ambiguous) << "another MASKKV_TEST_SEED chooses rows without a close call";
    EXPECT_LT(*std::ranges::max_element(bounds), 1e-3) << "a bound that says something";
    EXPECT_TRUE(AllWithin<double>(RunBlock(transformer, layer, hidden, positions), expected,
                                  [&](std::size_t i) { return bounds[i]; }))
        << "layer " << layer;
  }
}

TEST_P(BlockTest, RowsAreTheSameBitsWithAnyThreadsAndNeighbours) {
  for (const kernels::DType dtype :
       {kernels::DType::kF32, kernels::DType::kBF16, kernels::DType::kInt8}) {
    std::vector<std::vector<float>> runs;
    for (const int threads : {1, 2, 4}) {
      kernels::WorkerPool pool(threads);
      const Weights weights = Load(dtype, pool);
      Transformer transformer(weights, pool, kPositions);
      std::vector<std::int32_t> positions(100);
      for (std::int32_t i = 0; i < 100; ++i) positions[static_cast<std::size_t>(i)] = 3 * i;
      const std::vector<float> hidden = NormalValues(100 * transformer.hidden(), 5);
      runs.push_back(RunBlock(transformer, 1, hidden, positions));

      // The last 30 rows alone, over the same keys and values.
      const std::int64_t ld = 2 * transformer.kv_width();
      std::vector<float> kv(static_cast<std::size_t>(100 * ld));
      const auto rope = transformer.Rope(1, kPositions);
      const RopeRun run{100, rope.get()};
      transformer.ProjectKeysValues(1, hidden.data(), 100, positions.data(), {&run, 1}, kv.data());
      const AttentionSource source{.rows = 30,
                                   .rope = rope.get(),
                                   .keys = kv.data(),
                                   .values = kv.data() + transformer.kv_width(),
                                   .ldkv = ld,
                                   .own_rows = 100,
                                   .cached = {},
                                   .cached_dtype = kernels::DType::kF32,
                                   .log_sum_exp = nullptr};
      const auto tail = hidden.begin() + 70 * transformer.hidden();
      std::vector<float> alone(tail, hidden.end());
      transformer.Advance(1, alone.data(), 30, positions.data() + 70, {&source, 1});
      EXPECT_TRUE(
          std::equal(alone.begin(), alone.end(), runs.back().begin() + 70 * transformer.hidden()))
          << threads << " threads";
    }
    EXPECT_EQ(runs[1], runs[0]);
    EXPECT_EQ(runs[2], runs[0]);
  }
}

TEST_P(BlockTest, HalvesOfThePairsAreTheSameBitsAndOutputsChangeNothing) {
  for (const kernels::DType dtype :
       {kernels::DType::kF32, kernels::DType::kBF16, kernels::DType::kInt8}) {
    kernels::WorkerPool pool(2);
    const Weights weights = Load(dtype, pool);
    Transformer transformer(weights, pool, kPositions);
    constexpr std::int64_t kRows = 20;
    std::vector<std::int32_t> positions(kRows);
    for (std::size_t i = 0; i < positions.size(); ++i) {
      positions[i] = static_cast<std::int32_t>(7 * i);
    }
    const std::int64_t width = transformer.hidden();
    const std::vector<float> hidden = NormalValues(kRows * width, 5);
    const std::int64_t half = transformer.kv_width(), ld = 2 * half;
    std::vector<float> kv(static_cast<std::size_t>(kRows * ld)), keys = kv, values = kv;
    const auto rope = transformer.Rope(1, kPositions);
    const RopeRun run{kRows, rope.get()};
    transformer.ProjectKeysValues(1, hidden.data(), kRows, positions.data(), {&run, 1}, kv.data());
    transformer.ProjectKeys(1, hidden.data(), kRows, positions.data(), {&run, 1}, keys.data());
    transformer.ProjectValues(1, hidden.data(), kRows, values.data());
    for (std::int64_t row = 0; row < kRows; ++row) {
      const std::int64_t at = row * ld;
      EXPECT_TRUE(std::equal(kv.begin() + at, kv.begin() + at + half, keys.begin() + at));
      EXPECT_TRUE(
          std::equal(kv.begin() + at + half, kv.begin() + at + ld, values.begin() + at + half));
    }

    const AttentionSource source{.rows = kRows,
                                 .rope = rope.get(),
                                 .keys = kv.data(),
                                 .values = kv.data() + half,
                                 .ldkv = ld,
                                 .own_rows = kRows,
                                 .cached = {},
                                 .cached_dtype = kernels::DType::kF32,
                                 .log_sum_exp = nullptr};
    std::vector<float> attention(hidden.size()), feed_forward(hidden.size()), out = hidden;
    transformer.Advance(1, out.data(), kRows, positions.data(), {&source, 1}, nullptr,
                        {attention.data(), feed_forward.data()});
    EXPECT_EQ(out, RunBlock(transformer, 1, hidden, positions));
    const bool experts = transformer.config().experts > 0;
    for (std::size_t i = 0; i < out.size(); ++i) {
      const float sum = hidden[i] + attention[i] + feed_forward[i];
      // Experts are added one by one: as many sums more, each rounded.
      const float room =
          experts
              ? 8 * 0x1p-23F *
                    (std::abs(hidden[i]) + std::abs(attention[i]) + std::abs(feed_forward[i]) + 1)
              : 0;
      ASSERT_NEAR(out[i], sum, room) << "element " << i;
    }
  }
}

TEST_P(BlockTest, QueriesFromTheProductOfThePairsAreTheSameBits) {
  for (const kernels::DType dtype :
       {kernels::DType::kF32, kernels::DType::kBF16, kernels::DType::kInt8}) {
    kernels::WorkerPool pool(2);
    const Weights weights = Load(dtype, pool);
    Transformer transformer(weights, pool, kPositions);
    // More rows than are projected at a time, of two sequences with tables of their own.
    constexpr std::int64_t kRows = kRowBlock + 37, kFirst = kRowBlock - 5;
    std::vector<std::int32_t> positions(kRows);
    for (std::size_t i = 0; i < positions.size(); ++i) {
      positions[i] = static_cast<std::int32_t>((5 * i) % kPositions);
    }
    const std::int64_t width = transformer.hidden(), ld = 2 * transformer.kv_width();
    const std::vector<float> hidden = NormalValues(kRows * width, 9);
    const auto near = transformer.Rope(1, kPositions), far = transformer.Rope(4, kPositions);
    const RopeRun runs[] = {{kFirst, near.get()}, {kRows - kFirst, far.get()}};
    std::vector<float> kv(static_cast<std::size_t>(kRows * ld)), together = kv;
    std::vector<float> queries(static_cast<std::size_t>(kRows * transformer.query_width()));
    transformer.ProjectKeysValues(1, hidden.data(), kRows, positions.data(), runs, kv.data());
    transformer.ProjectAll(1, hidden.data(), kRows, positions.data(), runs, together.data(),
                           queries.data());
    EXPECT_EQ(together, kv);

    const AttentionSource source{.rows = kRows - kFirst,
                                 .rope = far.get(),
                                 .keys = kv.data() + kFirst * ld,
                                 .values = kv.data() + kFirst * ld + transformer.kv_width(),
                                 .ldkv = ld,
                                 .own_rows = kRows - kFirst,
                                 .cached = {},
                                 .cached_dtype = kernels::DType::kF32,
                                 .log_sum_exp = nullptr};
    const auto begin = hidden.begin() + kFirst * width;
    std::vector<float> apart(begin, hidden.end()), projected = apart;
    transformer.Advance(1, apart.data(), source.rows, positions.data() + kFirst, {&source, 1});
    transformer.AdvanceProjected(1, queries.data() + kFirst * transformer.query_width(),
                                 projected.data(), source.rows, {&source, 1});
    EXPECT_EQ(projected, apart);
    EXPECT_NE(projected, std::vector<float>(begin, hidden.end()));
  }
}

TEST_P(BlockTest, PackedBytesCountEveryMatrix) {
  kernels::WorkerPool pool(2);
  const Weights weights = Load(kernels::DType::kF32, pool);
  // The embedding stays mapped; a tied head is packed all the same.
  const model::ModelConfig& config = weights.config();
  const std::int64_t parameters =
      model::CountParameters(config) - (config.tied_head ? 0 : config.vocab_rows * config.hidden);
  EXPECT_GE(weights.packed_bytes(), 4 * parameters);
}

INSTANTIATE_TEST_SUITE_P(Families, BlockTest, ::testing::ValuesIn(model::FamilyNames()),
                         [](const auto& family) { return family.param; });

}  // namespace
}  // namespace maskkv::transformer
