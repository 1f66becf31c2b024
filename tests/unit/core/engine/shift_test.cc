// SPDX-License-Identifier: Apache-2.0
//
// Models whose prediction for a position is the output of the row before it: the prompt's last
// token votes, is in no entry and is recomputed by every step.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "core/engine/decode.h"
#include "core/engine/heap_kv.h"
#include "core/engine/prefill.h"
#include "core/engine/prefix_view.h"
#include "tests/unit/core/engine/test_model.h"
#include "tests/unit/core/model/family_checkpoints.h"

namespace maskkv::engine::shift_test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::int64_t kMasks = 12;

class ShiftTest : public ::testing::Test {
 protected:
  ShiftTest() : model_(Folder(), kernels::DType::kF32, 2, 200) {
    for (std::int32_t i = 0; i < 40; ++i) prompt_.push_back((7 * i) % 88);
  }

  const std::string& Folder() {
    model::WriteRandomCheckpoint(folder_, model::FamilyConfig("dream"), 11);
    return folder_.path();
  }
  const model::ModelConfig& config() const { return model_.weights.config(); }

  DecodeRequest Request(std::int64_t block) const {
    DecodeRequest request;
    request.prompt = prompt_;
    request.prompt_tokens = static_cast<std::int64_t>(prompt_.size());
    request.params.gen_length = kMasks;
    request.params.block_length = block;
    request.params.steps = kMasks;
    request.params.ignore_eos = true;
    request.params.stop_ids = {config().eos_id};
    return request;
  }

  std::shared_ptr<const HeapKvEntry> Entry(Selection selection, std::int64_t budget) {
    const std::vector<Row> rows = PromptThenMasks(prompt_, kMasks, config());
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

  DecodeRequest Cached(std::shared_ptr<const KvView> cache) const {
    DecodeRequest request = Request(kMasks);
    request.prompt = RecomputedTail(config(), prompt_);
    request.cache = std::move(cache);
    return request;
  }

  std::vector<StepEvent> Run(DecodeRequest request) {
    Decoder decoder(model_.transformer);
    const auto id = decoder.Add(std::move(request));
    EXPECT_TRUE(id.ok()) << id.status();
    std::vector<StepEvent> events;
    while (decoder.running() > 0) events.push_back(std::move(decoder.Step().front()));
    return events;
  }

  // Predictions of the first step by answer position.
  std::map<std::int64_t, Prediction> FirstStep(DecodeRequest request) {
    request.provisional = true;
    const std::vector<StepEvent> events = Run(std::move(request));
    std::map<std::int64_t, Prediction> all;
    for (const Prediction& p : events.front().committed) all[p.position] = p;
    for (const Prediction& p : events.front().provisional) all[p.position] = p;
    return all;
  }

  std::string AddError(const DecodeRequest& request) {
    const absl::Status status = Decoder(model_.transformer).Add(request).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  }

  // The most probable token after each row of prompt and masks, in f64 from the last hidden rows.
  std::vector<std::int32_t> TokenAfterEachRow() {
    transformer::Transformer& transformer = model_.transformer;
    std::vector<std::int32_t> tokens = prompt_, positions;
    tokens.insert(tokens.end(), kMasks, config().mask_id);
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      positions.push_back(static_cast<std::int32_t>(i));
    }
    const auto rows = static_cast<std::int64_t>(tokens.size());
    const std::int64_t width = config().hidden, ld = 2 * transformer.kv_width();
    std::vector<float> hidden(static_cast<std::size_t>(rows * width));
    std::vector<float> kv(static_cast<std::size_t>(rows * ld)), normed(hidden.size());
    transformer.Embed(tokens, hidden.data());
    const auto rope = transformer.Rope(1, rows);
    const transformer::RopeRun run{rows, rope.get()};
    for (std::int64_t layer = 0; layer < config().layers; ++layer) {
      transformer.ProjectKeysValues(layer, hidden.data(), rows, positions.data(), {&run, 1},
                                    kv.data());
      const transformer::AttentionSource source{.rows = rows,
                                                .rope = rope.get(),
                                                .keys = kv.data(),
                                                .values = kv.data() + transformer.kv_width(),
                                                .ldkv = ld,
                                                .own_rows = rows,
                                                .cached = {},
                                                .cached_dtype = kernels::DType::kF32,
                                                .log_sum_exp = nullptr};
      transformer.Advance(layer, hidden.data(), rows, positions.data(), {&source, 1});
    }
    transformer.FinalNorm(hidden.data(), rows, normed.data());
    const auto& checkpoint = model_.weights.checkpoint();
    const auto* head =
        reinterpret_cast<const float*>(checkpoint.Tensor(checkpoint.tensors().head)->data);
    std::vector<std::int32_t> best;
    for (std::int64_t row = 0; row < rows; ++row) {
      std::vector<double> logits;
      for (std::int64_t id = 0; id < config().vocab_rows; ++id) {
        double sum = 0;
        for (std::int64_t i = 0; i < width; ++i) {
          sum += static_cast<double>(normed[static_cast<std::size_t>(row * width + i)]) *
                 head[id * width + i];
        }
        logits.push_back(id == config().mask_id ? -1e300 : sum);
      }
      best.push_back(static_cast<std::int32_t>(std::ranges::max_element(logits) - logits.begin()));
    }
    return best;
  }

  model::TemporaryFolder folder_;
  TestModel model_;
  std::vector<std::int32_t> prompt_;
};

TEST_F(ShiftTest, TheLastPromptTokenIsAResponseRow) {
  const std::vector<Row> rows = PromptThenMasks(std::vector<std::int32_t>{4, 5, 6}, 2, config());
  ASSERT_EQ(rows.size(), 5U);
  std::vector<std::int32_t> tokens, positions;
  std::vector<Role> roles;
  for (const Row& row : rows) {
    tokens.push_back(row.token);
    positions.push_back(row.position);
    roles.push_back(row.role);
  }
  const std::int32_t mask = config().mask_id;
  EXPECT_THAT(tokens, ElementsAre(4, 5, 6, mask, mask));
  EXPECT_THAT(positions, ElementsAre(0, 1, 2, 3, 4));
  EXPECT_THAT(roles, ElementsAre(Role::kPrompt, Role::kPrompt, Role::kResponse, Role::kResponse,
                                 Role::kResponse));
  EXPECT_EQ(ServableTokens(config(), 3), 2);
  EXPECT_EQ(ServableTokens(config(), 0), 0);
  EXPECT_THAT(RecomputedTail(config(), std::vector<std::int32_t>{4, 5, 6}), ElementsAre(6));
}

TEST_F(ShiftTest, APositionIsPredictedFromTheRowBeforeIt) {
  const std::vector<std::int32_t> after = TokenAfterEachRow();
  for (const std::int64_t block : {4, 12}) {
    const auto predictions = FirstStep(Request(block));
    ASSERT_EQ(predictions.size(), static_cast<std::size_t>(kMasks));
    for (const auto& [position, prediction] : predictions) {
      EXPECT_EQ(prediction.token, after[prompt_.size() + static_cast<std::size_t>(position) - 1])
          << "position " << position;
    }
  }
}

TEST_F(ShiftTest, TheFirstStepOverAWholeEntryIsTheOneWithoutACache) {
  const auto none = FirstStep(Request(kMasks));
  const auto full = FirstStep(Cached(Entry(Selection::kFull, 1)));
  ASSERT_EQ(full.size(), none.size());
  for (const auto& [position, prediction] : none) {
    EXPECT_EQ(full.at(position).token, prediction.token);
    // f32 sums in another order: far above their rounding, far below another row's confidence.
    EXPECT_NEAR(full.at(position).confidence, prediction.confidence, 1e-5);
  }
}

TEST_F(ShiftTest, ABudgetOfThePromptsLengthGivesTheBitsOfTheWholeCache) {
  for (const std::int64_t budget : {39, 40, 1000}) {
    const std::vector<StepEvent> whole = Run(Cached(Entry(Selection::kFull, 1)));
    const std::vector<StepEvent> evicted = Run(Cached(Entry(Selection::kMaskKv, budget)));
    ASSERT_EQ(evicted.size(), whole.size());
    for (std::size_t i = 0; i < whole.size(); ++i) {
      ASSERT_EQ(evicted[i].committed.size(), whole[i].committed.size());
      EXPECT_EQ(evicted[i].rows, kMasks + 1);
      for (std::size_t c = 0; c < whole[i].committed.size(); ++c) {
        EXPECT_EQ(evicted[i].committed[c].token, whole[i].committed[c].token);
        EXPECT_EQ(evicted[i].committed[c].confidence, whole[i].committed[c].confidence);
      }
    }
  }
}

TEST_F(ShiftTest, NoEntryHoldsThePromptsLastToken) {
  const auto entry = Entry(Selection::kFull, 1);
  for (std::int64_t layer = 0; layer < config().layers; ++layer) {
    for (std::int64_t head = 0; head < config().kv_heads; ++head) {
      EXPECT_EQ(entry->Positions(layer, head).size(), 39U);
      EXPECT_EQ(entry->Positions(layer, head).back(), 38);
    }
  }
}

TEST_F(ShiftTest, AQuestionOverADocumentIsRecomputedToItsLastToken) {
  DecodeRequest request = Cached(std::make_shared<PrefixView>(Entry(Selection::kFull, 1), 25));
  request.prompt.assign(prompt_.begin() + 25, prompt_.end());
  for (const StepEvent& event : Run(request)) EXPECT_EQ(event.rows, 15 + kMasks);
  const auto first = FirstStep(request);
  std::ranges::reverse(request.prompt);
  const auto other = FirstStep(request);
  EXPECT_TRUE(std::ranges::any_of(
      first, [&](const auto& p) { return p.second.confidence != other.at(p.first).confidence; }));
}

TEST_F(ShiftTest, ThePromptsLastTokenMustBeThere) {
  DecodeRequest request = Cached(Entry(Selection::kFull, 1));
  request.prompt.clear();
  EXPECT_THAT(AddError(request), HasSubstr("at least the prompt's last token"));
  request.cache = nullptr;
  request.prompt_tokens = 0;
  EXPECT_THAT(AddError(request), HasSubstr("prompt: expected at least one token"));
  EXPECT_FALSE(ValidatePrompt(config(), {}, 4, 100).ok());
}

TEST_F(ShiftTest, APromptOfOneTokenIsAllTail) {
  prompt_ = {17};
  const auto none = FirstStep(Request(kMasks));
  const auto cached = FirstStep(Cached(Entry(Selection::kMaskKv, 4)));
  for (const auto& [position, prediction] : none) {
    EXPECT_EQ(cached.at(position).token, prediction.token);
    EXPECT_EQ(cached.at(position).confidence, prediction.confidence);
  }
}

}  // namespace
}  // namespace maskkv::engine::shift_test
