// SPDX-License-Identifier: Apache-2.0
#include "core/engine/decode.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/engine/heap_kv.h"
#include "core/engine/prefill.h"
#include "tests/unit/core/engine/test_model.h"

namespace maskkv::engine::decode_test {
namespace {

using ::testing::HasSubstr;

class DecodeTest : public ::testing::Test {
 protected:
  DecodeTest()
      : model_(std::string(MASKKV_SOURCE_DIR) + "/tests/data/golden/checkpoints/mha",
               kernels::DType::kF32, 2, 200) {
    for (std::int32_t i = 0; i < 30; ++i) prompt_.push_back((7 * i) % 90);
  }
  const model::ModelConfig& config() const { return model_.weights.config(); }

  DecodeRequest Request() const {
    DecodeRequest request;
    request.prompt = prompt_;
    request.prompt_tokens = static_cast<std::int64_t>(prompt_.size());
    request.params.gen_length = 8;
    request.params.block_length = 4;
    request.params.steps = 8;
    request.params.stop_ids = {config().eos_id};
    return request;
  }

  std::shared_ptr<const HeapKvEntry> Entry(Selection selection, std::int64_t budget) {
    const std::vector<Row> rows = PromptThenMasks(prompt_, 8, config());
    PrefillRequest request;
    request.rows = rows;
    request.plan.selection = selection;
    request.plan.layer_rule = LayerRule::kUniform;
    request.plan.budget = budget;
    auto entry = std::make_shared<HeapKvEntry>();
    const auto result = Prefiller(model_.transformer).Run(request, *entry);
    EXPECT_TRUE(result.ok()) << result.status();
    return entry;
  }

  std::vector<std::int32_t> Tokens(DecodeRequest request) {
    Decoder decoder(model_.transformer);
    const auto id = decoder.Add(std::move(request));
    EXPECT_TRUE(id.ok()) << id.status();
    while (decoder.running() > 0) EXPECT_TRUE(decoder.Step().front().status.ok());
    const auto tokens = decoder.Find(*id)->tokens();
    return {tokens.begin(), tokens.end()};
  }

  absl::Status AddError(const DecodeRequest& request) {
    return Decoder(model_.transformer).Add(request).status();
  }

  TestModel model_;
  std::vector<std::int32_t> prompt_;
};

TEST_F(DecodeTest, ABudgetOfThePromptsLengthGivesTheTokensOfTheWholeCache) {
  DecodeRequest whole = Request(), evicted = Request();
  whole.params.ignore_eos = evicted.params.ignore_eos = true;
  whole.prompt = evicted.prompt = {};
  whole.cache = Entry(Selection::kFull, 1);
  evicted.cache = Entry(Selection::kMaskKv, 30);
  EXPECT_EQ(Tokens(evicted), Tokens(whole));
}

TEST_F(DecodeTest, TheSuppressedEndTokenAndTheMaskAreNeverPredicted) {
  DecodeRequest request = Request();
  request.params.suppress_eos = true;
  request.params.temperature = 50;  // close to uniform: every id would come up
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    request.params.seed = seed;
    for (const std::int32_t token : Tokens(request)) {
      EXPECT_NE(token, config().mask_id);
      EXPECT_NE(token, config().eos_id);
    }
  }
}

TEST_F(DecodeTest, TheSeedDecidesWhatIsSampled) {
  DecodeRequest request = Request();
  request.params.temperature = 5;
  request.params.ignore_eos = true;
  request.params.seed = 1;
  const std::vector<std::int32_t> first = Tokens(request);
  EXPECT_EQ(Tokens(request), first);
  request.params.seed = 2;
  EXPECT_NE(Tokens(request), first);
}

TEST_F(DecodeTest, FinishedRequestsStayUntilTheyAreRemoved) {
  Decoder decoder(model_.transformer);
  const auto id = decoder.Add(Request());
  ASSERT_TRUE(id.ok());
  while (decoder.running() > 0) decoder.Step();
  EXPECT_TRUE(decoder.Step().empty());
  ASSERT_NE(decoder.Find(*id), nullptr);
  EXPECT_TRUE(decoder.Find(*id)->finished());
  EXPECT_TRUE(decoder.Remove(*id).ok());
  EXPECT_EQ(decoder.Find(*id), nullptr);
  EXPECT_EQ(decoder.Remove(*id).code(), absl::StatusCode::kNotFound);
}

TEST_F(DecodeTest, RefusesRequestsThatDoNotFit) {
  DecodeRequest request = Request();
  request.params.steps = 7;
  EXPECT_THAT(std::string(AddError(request).message()), HasSubstr("steps"));
  request = Request();
  request.prompt[3] = config().mask_id;
  EXPECT_THAT(std::string(AddError(request).message()), HasSubstr("position 3"));
  request = Request();
  request.prompt_tokens = 29;
  EXPECT_THAT(std::string(AddError(request).message()), HasSubstr("expected prompt_tokens 29"));
  request.prompt = {};
  request.cache = Entry(Selection::kFull, 1);
  request.prompt_tokens = 193;
  EXPECT_EQ(AddError(request).code(), absl::StatusCode::kInvalidArgument);
  request.prompt_tokens = -1;
  EXPECT_EQ(AddError(request).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(DecodeTest, RefusesAnEntryOfAnotherShape) {
  auto entry = std::make_shared<HeapKvEntry>();
  ASSERT_TRUE(entry->Begin({.layers = 1, .kv_heads = 1, .head_dim = 2}, 0).ok());
  ASSERT_TRUE(entry->AllocateLayer(0, std::vector<std::int64_t>{0}).ok());
  ASSERT_TRUE(entry->Finish().ok());
  DecodeRequest request = Request();
  request.cache = entry;
  EXPECT_EQ(AddError(request).code(), absl::StatusCode::kFailedPrecondition);
}

// An entry whose values are all NaN, as a corrupted one could be.
TEST_F(DecodeTest, ABrokenEntryFailsItsRequestAndNoOther) {
  auto broken = std::make_shared<HeapKvEntry>();
  const EntryShape shape{config().layers, config().kv_heads, config().head_dim};
  ASSERT_TRUE(broken->Begin(shape, config().layers * config().kv_heads).ok());
  for (std::int64_t layer = 0; layer < config().layers; ++layer) {
    const auto extents = broken->AllocateLayer(
        layer, std::vector<std::int64_t>(static_cast<std::size_t>(config().kv_heads), 1));
    ASSERT_TRUE(extents.ok());
    for (const HeadExtent& extent : *extents) {
      std::fill_n(reinterpret_cast<float*>(extent.keys), config().head_dim, 0.0F);
      std::fill_n(reinterpret_cast<float*>(extent.values), config().head_dim,
                  std::numeric_limits<float>::quiet_NaN());
      extent.positions[0] = 0;
    }
  }
  ASSERT_TRUE(broken->Finish().ok());

  Decoder decoder(model_.transformer);
  DecodeRequest bad = Request();
  bad.prompt = {};
  bad.cache = broken;
  const auto bad_id = decoder.Add(std::move(bad));
  const auto good_id = decoder.Add(Request());
  ASSERT_TRUE(bad_id.ok() && good_id.ok());
  const std::vector<StepEvent> events = decoder.Step();
  ASSERT_EQ(events.size(), 2U);
  EXPECT_EQ(events[0].status.code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(events[1].status.ok());
  EXPECT_EQ(decoder.running(), 1);
  while (decoder.running() > 0) decoder.Step();
  const auto tokens = decoder.Find(*good_id)->tokens();
  EXPECT_EQ(std::vector<std::int32_t>(tokens.begin(), tokens.end()), Tokens(Request()));
}

}  // namespace
}  // namespace maskkv::engine::decode_test
