// SPDX-License-Identifier: Apache-2.0
//
// A factor of RoPE's base is the same as a checkpoint whose base is larger, bit for bit; an entry
// knows its factor and is read with no other.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <tuple>
#include <vector>

#include "core/engine/decode.h"
#include "core/engine/heap_kv.h"
#include "core/engine/prefill.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/core/engine/test_model.h"
#include "tests/unit/core/model/family_checkpoints.h"

namespace maskkv::engine::rope_scale_test {
namespace {

using maskkv::testing::StatusIs;
using ::testing::HasSubstr;

constexpr std::int64_t kMasks = 6, kMaxPositions = 300;
constexpr double kScale = 4;  // a product with it is exact

struct Folder {
  Folder(const std::string& family, double scale) {
    nlohmann::json config = model::FamilyConfig(family);
    config["rope_theta"] = scale * config["rope_theta"].get<double>();
    model::WriteRandomCheckpoint(folder, config, 3);
  }
  model::TemporaryFolder folder;
};

// A model of which every forward is scaled.
struct Scaled {
  Scaled(const std::string& path, kernels::DType dtype, double the_scale)
      : model(path, dtype, 2, kMaxPositions), scale(the_scale) {
    for (std::int32_t i = 0; i < 280; ++i) prompt.push_back((11 * i + i * i) % 80);
  }

  PrefillRequest Request(std::span<const Row> rows) const {
    PrefillRequest request;
    request.rows = rows;
    request.rope_scale = scale;
    request.plan.layer_rule = LayerRule::kOnline;
    request.plan.budget = 40;
    request.kv_dtype = model.weights.compute();
    return request;
  }
  std::vector<Row> Rows() const { return PromptThenMasks(prompt, kMasks, model.weights.config()); }

  std::shared_ptr<const HeapKvEntry> Entry() {
    const std::vector<Row> rows = Rows();
    auto entry = std::make_shared<HeapKvEntry>();
    EXPECT_THAT(Prefiller(model.transformer).Run(Request(rows), *entry), maskkv::testing::IsOk());
    return entry;
  }

  DecodeRequest Decode(std::shared_ptr<const KvView> cache) const {
    DecodeRequest request;
    request.prompt_tokens = std::ssize(prompt);
    request.prompt = cache == nullptr ? prompt : RecomputedTail(model.weights.config(), prompt);
    request.cache = std::move(cache);
    request.rope_scale = scale;
    request.params.gen_length = request.params.block_length = request.params.steps = kMasks;
    request.params.stop_ids = {model.weights.config().eos_id};
    request.params.ignore_eos = true;
    return request;
  }

  // (position, token, bits of the confidence) in the order of commits.
  std::vector<std::tuple<std::int64_t, std::int32_t, std::uint32_t>> Answer(
      std::shared_ptr<const KvView> cache) {
    Decoder decoder(model.transformer);
    EXPECT_THAT(decoder.Add(Decode(std::move(cache))), maskkv::testing::IsOk());
    std::vector<std::tuple<std::int64_t, std::int32_t, std::uint32_t>> answer;
    while (decoder.running() > 0) {
      const std::vector<StepEvent> events = decoder.Step();
      for (const Prediction& p : events.front().committed) {
        answer.emplace_back(p.position, p.token, std::bit_cast<std::uint32_t>(p.confidence));
      }
    }
    return answer;
  }

  TestModel model;
  double scale;
  std::vector<std::int32_t> prompt;
};

std::vector<std::byte> Keys(const HeapKvEntry& entry) {
  std::vector<std::byte> keys;
  for (std::int64_t layer = 0; layer < entry.shape().layers; ++layer) {
    for (const kernels::CachedHead& head : entry.Layer(layer)) {
      const auto* first = static_cast<const std::byte*>(head.k);
      keys.insert(keys.end(), first,
                  first + static_cast<std::size_t>(head.pairs * entry.shape().head_dim) *
                              kernels::SizeOf(entry.shape().dtype));
    }
  }
  return keys;
}

class RopeScaleTest : public ::testing::TestWithParam<std::tuple<std::string, kernels::DType>> {};

TEST_P(RopeScaleTest, IsACheckpointOfALargerBase) {
  const auto& [family, dtype] = GetParam();
  const Folder plain(family, 1), larger(family, kScale);
  Scaled scaled(plain.folder.path(), dtype, kScale), based(larger.folder.path(), dtype, 1);
  const auto a = scaled.Entry(), b = based.Entry();
  EXPECT_EQ(a->shape().rope_scale, kScale);
  EXPECT_EQ(b->shape().rope_scale, 1);
  EXPECT_EQ(Keys(*a), Keys(*b));
  EXPECT_EQ(scaled.Answer(a), based.Answer(b));
  EXPECT_EQ(scaled.Answer(nullptr), based.Answer(nullptr));
  const auto importance = Prefiller(scaled.model.transformer).MeasureImportance(scaled.Rows(), 4);
  EXPECT_EQ(*importance, *Prefiller(based.model.transformer).MeasureImportance(based.Rows()));

  scaled.scale = 1;
  EXPECT_NE(Keys(*scaled.Entry()), Keys(*a)) << "and it changes something";
  EXPECT_NE(scaled.Answer(nullptr), based.Answer(nullptr));
}

INSTANTIATE_TEST_SUITE_P(Families, RopeScaleTest,
                         ::testing::Combine(::testing::ValuesIn(model::FamilyNames()),
                                            ::testing::Values(kernels::DType::kF32,
                                                              kernels::DType::kBF16)),
                         [](const auto& model) {
                           return std::get<0>(model.param) + "_" +
                                  std::string(kernels::Name(std::get<1>(model.param)));
                         });

TEST(RopeScaleRequests, AnEntryIsReadWithItsOwnFactorOnly) {
  const Folder folder("llada", 1);
  Scaled scaled(folder.folder.path(), kernels::DType::kF32, kScale);
  const auto entry = scaled.Entry();
  scaled.scale = 5;
  EXPECT_THAT(Decoder(scaled.model.transformer).Add(scaled.Decode(entry)),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       "cache: expected keys rotated with the request's rope_scale 5, found 4"));
  scaled.scale = kScale;
  EXPECT_THAT(Decoder(scaled.model.transformer).Add(scaled.Decode(entry)), maskkv::testing::IsOk());
}

TEST(RopeScaleRequests, WhatIsNoFactorIsRefused) {
  const Folder folder("llada", 1);
  Scaled scaled(folder.folder.path(), kernels::DType::kF32, 1);
  const auto refused =
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("rope_scale: expected a number"));
  for (const double scale :
       {0.0, -2.0, 0.99, std::nan(""), 1e308, std::numeric_limits<double>::infinity()}) {
    scaled.scale = scale;
    const std::vector<Row> rows = scaled.Rows();
    HeapKvEntry entry;
    EXPECT_THAT(Prefiller(scaled.model.transformer).Run(scaled.Request(rows), entry), refused);
    EXPECT_THAT(Prefiller(scaled.model.transformer).MeasureImportance(rows, scale), refused);
    EXPECT_THAT(Decoder(scaled.model.transformer).Add(scaled.Decode(nullptr)), refused);
  }
}

}  // namespace
}  // namespace maskkv::engine::rope_scale_test
