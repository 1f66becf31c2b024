// SPDX-License-Identifier: Apache-2.0
//
// Entries of int8 pairs: what prefill writes is the f32 entry's pairs, each quantised; whoever
// reads them does as over an f32 entry of the numbers that they stand for, bit for bit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "core/engine/decode.h"
#include "core/engine/document_copy.h"
#include "core/engine/heap_kv.h"
#include "core/engine/prefill.h"
#include "core/engine/prefix_view.h"
#include "core/engine/prompt.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/core/engine/test_model.h"

namespace maskkv::engine::int8_entry_test {
namespace {

using ::maskkv::testing::IsOk;
using ::testing::ElementsAreArray;

constexpr std::int64_t kMasks = 6;
constexpr std::int64_t kTokens = 90;

std::vector<float> Read(const std::int8_t* q, const float* scales, std::int64_t rows,
                        std::int64_t width) {
  std::vector<float> x;
  for (std::int64_t at = 0; at < rows * width; ++at) {
    x.push_back(static_cast<float>(q[at]) * scales[at / width]);
  }
  return x;
}

// The same pairs as f32.
std::shared_ptr<const HeapKvEntry> Widened(const KvView& narrow) {
  auto wide = std::make_shared<HeapKvEntry>();
  EntryShape shape = narrow.shape();
  shape.dtype = kernels::DType::kF32;
  EXPECT_THAT(wide->Begin(shape, 1'000'000), IsOk());
  for (std::int64_t layer = 0; layer < shape.layers; ++layer) {
    std::vector<std::int64_t> pairs;
    for (const kernels::CachedHead& head : narrow.Layer(layer)) pairs.push_back(head.pairs);
    const auto extents = wide->AllocateLayer(layer, pairs);
    EXPECT_THAT(extents, IsOk());
    for (std::size_t h = 0; h < pairs.size(); ++h) {
      const kernels::CachedHead& head = narrow.Layer(layer)[h];
      const auto keys =
          Read(static_cast<const std::int8_t*>(head.k), head.k_scales, head.pairs, shape.head_dim);
      const auto values =
          Read(static_cast<const std::int8_t*>(head.v), head.v_scales, head.pairs, shape.head_dim);
      std::memcpy((*extents)[h].keys, keys.data(), keys.size() * sizeof(float));
      std::memcpy((*extents)[h].values, values.data(), values.size() * sizeof(float));
      std::ranges::copy(narrow.Positions(layer, static_cast<std::int64_t>(h)),
                        (*extents)[h].positions);
    }
  }
  EXPECT_THAT(wide->Finish(), IsOk());
  return wide;
}

class Int8EntryTest : public ::testing::TestWithParam<const char*> {
 protected:
  Int8EntryTest()
      : model_(std::string(MASKKV_SOURCE_DIR) + "/tests/data/golden/checkpoints/" + GetParam(),
               kernels::DType::kF32, 2, 200) {
    for (std::int32_t i = 0; i < kTokens; ++i) prompt_.push_back(11 * i % 41);
  }
  const model::ModelConfig& config() const { return model_.weights.config(); }

  static EvictionPlan Plan(LayerRule rule) {
    EvictionPlan plan;
    plan.layer_rule = rule;
    if (rule == LayerRule::kPool) plan.head_rule = HeadRule::kPool;
    plan.budget = 9;
    return plan;
  }
  static EvictionPlan Whole() {
    EvictionPlan plan;
    plan.selection = Selection::kFull;
    return plan;
  }

  std::shared_ptr<const HeapKvEntry> Prefill(const EvictionPlan& plan, kernels::DType dtype) {
    const std::vector<Row> rows = PromptThenMasks(prompt_, kMasks, config());
    PrefillRequest request;
    request.rows = rows;
    request.plan = plan;
    request.kv_dtype = dtype;
    auto entry = std::make_shared<HeapKvEntry>();
    EXPECT_THAT(Prefiller(model_.transformer).Run(request, *entry), IsOk());
    return entry;
  }

  // The tokens and their confidences, step by step, over an entry.
  std::vector<double> Decode(std::shared_ptr<const KvView> entry,
                             std::vector<std::int32_t> recomputed) {
    DecodeRequest request;
    request.prompt_tokens = kTokens;
    request.params.gen_length = request.params.block_length = request.params.steps = kMasks;
    request.params.ignore_eos = true;
    request.params.stop_ids = {0};
    request.prompt = std::move(recomputed);
    request.cache = std::move(entry);
    Decoder decoder(model_.transformer);
    EXPECT_THAT(decoder.Add(std::move(request)), IsOk());
    std::vector<double> seen;
    while (decoder.running() > 0) {
      const StepEvent event = decoder.Step().front();
      EXPECT_THAT(event.status, IsOk());
      for (const decoding::Prediction& commit : event.committed) {
        seen.push_back(commit.token);
        seen.push_back(commit.confidence);
      }
    }
    return seen;
  }

  TestModel model_;
  std::vector<std::int32_t> prompt_;
};

INSTANTIATE_TEST_SUITE_P(Families, Int8EntryTest, ::testing::Values("gqa", "odd", "dream"));

TEST_P(Int8EntryTest, PrefillWritesTheF32EntrysPairsQuantised) {
  const std::int64_t dim = config().head_dim;
  std::vector<std::int8_t> row(static_cast<std::size_t>(dim));
  for (const EvictionPlan& plan :
       {Plan(LayerRule::kUniform), Plan(LayerRule::kPool), Plan(LayerRule::kOnline), Whole()}) {
    const auto wide = Prefill(plan, kernels::DType::kF32);
    const auto narrow = Prefill(plan, kernels::DType::kInt8);
    for (std::int64_t layer = 0; layer < config().layers; ++layer) {
      for (std::int64_t head = 0; head < config().kv_heads; ++head) {
        EXPECT_THAT(narrow->Positions(layer, head), ElementsAreArray(wide->Positions(layer, head)));
        const kernels::CachedHead& from = wide->Layer(layer)[static_cast<std::size_t>(head)];
        const kernels::CachedHead& got = narrow->Layer(layer)[static_cast<std::size_t>(head)];
        ASSERT_EQ(got.pairs, from.pairs);
        for (std::int64_t i = 0; i < got.pairs; ++i) {
          for (const auto& [x, q, scale] :
               {std::tuple{from.k, got.k, got.k_scales}, {from.v, got.v, got.v_scales}}) {
            EXPECT_EQ(
                kernels::QuantiseCachedRow(static_cast<const float*>(x) + i * dim, dim, row.data()),
                scale[i]);
            EXPECT_EQ(
                std::memcmp(static_cast<const std::int8_t*>(q) + i * dim, row.data(), row.size()),
                0);
          }
        }
      }
    }
    EXPECT_EQ(narrow->bytes() * wide->shape().PairBytes(),
              wide->bytes() * narrow->shape().PairBytes());
  }
}

TEST_P(Int8EntryTest, DecodesAsOverTheNumbersThatItStandsFor) {
  for (const EvictionPlan& plan : {Plan(LayerRule::kUniform), Whole()}) {
    const auto narrow = Prefill(plan, kernels::DType::kInt8);
    const auto wide = Widened(*narrow);
    const std::vector<std::int32_t> tail = RecomputedTail(config(), prompt_);
    const std::vector<double> seen = Decode(narrow, tail);
    EXPECT_EQ(std::ssize(seen), 2 * kMasks);
    EXPECT_EQ(seen, Decode(wide, tail));
    // Another question: a part of the pairs.
    const std::vector<std::int32_t> question(prompt_.begin() + 50, prompt_.end());
    EXPECT_EQ(Decode(std::make_shared<PrefixView>(narrow, 50), question),
              Decode(std::make_shared<PrefixView>(wide, 50), question));
  }
}

TEST_P(Int8EntryTest, ADocumentsCopyIsReadAsTheNumbersThatItStandsFor) {
  const auto narrow = Prefill(Whole(), kernels::DType::kInt8);
  const auto wide = Widened(*narrow);
  const std::int64_t tokens = ServableTokens(config(), kTokens);
  MASKKV_ASSERT_OK_AND_ASSIGN(const DocumentCopy of_narrow, DocumentCopy::Of(*narrow, tokens));
  MASKKV_ASSERT_OK_AND_ASSIGN(const DocumentCopy of_wide, DocumentCopy::Of(*wide, tokens));
  const auto size = static_cast<std::size_t>(tokens * 2 * config().kv_heads * config().head_dim);
  for (std::int64_t layer = 0; layer < config().layers; ++layer) {
    std::vector<float> a(size), b(size);
    of_narrow.ReadLayer(model_.pool, layer, a.data());
    of_wide.ReadLayer(model_.pool, layer, b.data());
    EXPECT_EQ(a, b);
  }
}

}  // namespace
}  // namespace maskkv::engine::int8_entry_test
