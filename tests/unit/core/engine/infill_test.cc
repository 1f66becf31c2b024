// SPDX-License-Identifier: Apache-2.0
//
// Filling in: masks between given tokens, a prompt on both sides of the canvas, kept pairs on both
// sides too. Values against the oracle: golden_test.cc.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "core/engine/decode.h"
#include "core/engine/heap_kv.h"
#include "core/engine/prefill.h"
#include "core/engine/prefix_view.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/core/engine/test_model.h"

namespace maskkv::engine::infill_test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::int32_t kGiven = 11;

class InfillTest : public ::testing::TestWithParam<std::string> {
 protected:
  InfillTest()
      : model_(std::string(MASKKV_SOURCE_DIR) + "/tests/data/golden/checkpoints/" + GetParam(),
               kernels::DType::kF32, 2, 120) {
    for (std::int32_t i = 0; i < 30; ++i) prompt_.push_back((7 * i) % 50);
    for (std::int32_t i = 0; i < 20; ++i) suffix_.push_back((11 * i + 3) % 50);
    canvas_.assign(12, config().mask_id);
    for (const std::size_t given : {0U, 4U, 5U, 6U, 7U, 11U}) canvas_[given] = kGiven;
    canvas_[5] = config().eos_id;
  }
  const model::ModelConfig& config() const { return model_.weights.config(); }

  DecodeRequest Uncached() const {
    DecodeRequest request;
    request.prompt = prompt_;
    request.prompt_tokens = std::ssize(prompt_);
    request.response = canvas_;
    request.suffix = suffix_;
    request.suffix_tokens = std::ssize(suffix_);
    request.params.gen_length = std::ssize(canvas_);
    request.params.block_length = 4;
    request.params.steps = 12;
    request.params.stop_ids = {config().eos_id};
    request.params.whole_canvas = true;
    return request;
  }

  DecodeRequest Cached(std::shared_ptr<const KvView> entry) const {
    DecodeRequest request = Uncached();
    request.prompt = RecomputedTail(config(), prompt_);
    request.suffix.clear();
    request.cache = std::move(entry);
    return request;
  }

  std::shared_ptr<const HeapKvEntry> Entry(Selection selection, std::int64_t budget) {
    const std::vector<Row> rows = PromptThenResponse(prompt_, canvas_, config(), suffix_);
    PrefillRequest request;
    request.rows = rows;
    request.plan.selection = selection;
    request.plan.layer_rule = LayerRule::kUniform;
    request.plan.budget = budget;
    auto entry = std::make_shared<HeapKvEntry>();
    const auto result = Prefiller(model_.transformer).Run(request, *entry);
    EXPECT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->prompt_tokens,
              std::ssize(prompt_) + std::ssize(suffix_) - (config().shifted_logits ? 1 : 0));
    return entry;
  }

  std::vector<StepEvent> Run(DecodeRequest request, std::vector<std::int32_t>* answer = nullptr) {
    Decoder decoder(model_.transformer);
    const auto id = decoder.Add(std::move(request));
    EXPECT_TRUE(id.ok()) << id.status();
    std::vector<StepEvent> events;
    while (id.ok() && decoder.running() > 0) {
      events.push_back(decoder.Step().front());
      EXPECT_TRUE(events.back().status.ok()) << events.back().status;
      decoder.CheckInvariants();
    }
    if (answer != nullptr) *answer = decoder.Find(*id)->Answer();
    return events;
  }

  // Predictions of the first step by canvas position.
  std::map<std::int64_t, Prediction> FirstStep(DecodeRequest request) {
    request.provisional = true;
    const StepEvent first = Run(std::move(request)).front();
    std::map<std::int64_t, Prediction> all;
    for (const Prediction& p : first.committed) all[p.position] = p;
    for (const Prediction& p : first.provisional) all[p.position] = p;
    return all;
  }

  std::string AddError(const DecodeRequest& request) {
    const absl::Status status = Decoder(model_.transformer).Add(request).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return std::string(status.message());
  }

  TestModel model_;
  std::vector<std::int32_t> prompt_, suffix_, canvas_;
};

TEST_P(InfillTest, GivenTokensStayAndTheWholeCanvasIsTheAnswer) {
  std::vector<std::int32_t> answer;
  const std::vector<StepEvent> events = Run(Cached(Entry(Selection::kMaskKv, 7)), &answer);
  ASSERT_EQ(answer.size(), canvas_.size());
  for (std::size_t i = 0; i < canvas_.size(); ++i) {
    if (canvas_[i] == config().mask_id) {
      EXPECT_NE(answer[i], config().mask_id);
    } else {
      EXPECT_EQ(answer[i], canvas_[i]);
    }
  }
  EXPECT_EQ(events.back().finish_reason, FinishReason::kLength);
  // Three masks a block, in blocks 0 and 2; block 1 takes no step.
  std::vector<std::int64_t> steps;
  for (const StepEvent& event : events) steps.push_back(event.step);
  EXPECT_THAT(steps, ElementsAre(0, 1, 2, 8, 9, 10));
}

TEST_P(InfillTest, TheFirstStepOverAWholeEntryIsTheOneWithoutACache) {
  const auto none = FirstStep(Uncached());
  const auto full = FirstStep(Cached(Entry(Selection::kFull, 1)));
  ASSERT_EQ(none.size(), 6U);
  ASSERT_EQ(full.size(), none.size());
  for (const auto& [position, prediction] : none) {
    EXPECT_EQ(full.at(position).token, prediction.token);
    // f32 sums in another order: far above their rounding, far below another row's confidence.
    EXPECT_NEAR(full.at(position).confidence, prediction.confidence, 1e-5);
  }
}

TEST_P(InfillTest, TheSuffixMatters) {
  const auto with = FirstStep(Uncached());
  std::ranges::reverse(suffix_);
  const auto other = FirstStep(Uncached());
  EXPECT_TRUE(std::ranges::any_of(
      with, [&](const auto& p) { return p.second.confidence != other.at(p.first).confidence; }));
}

TEST_P(InfillTest, ABudgetOfThePromptsLengthGivesTheBitsOfTheWholeCache) {
  const std::vector<StepEvent> whole = Run(Cached(Entry(Selection::kFull, 1)));
  const std::vector<StepEvent> kept = Run(Cached(Entry(Selection::kMaskKv, 50)));
  ASSERT_EQ(kept.size(), whole.size());
  for (std::size_t i = 0; i < whole.size(); ++i) {
    ASSERT_EQ(kept[i].committed.size(), whole[i].committed.size());
    for (std::size_t c = 0; c < whole[i].committed.size(); ++c) {
      EXPECT_EQ(kept[i].committed[c].token, whole[i].committed[c].token);
      EXPECT_EQ(kept[i].committed[c].confidence, whole[i].committed[c].confidence);
    }
  }
}

TEST_P(InfillTest, PairsAreKeptOnBothSidesAndNoneWithin) {
  const auto entry = Entry(Selection::kMaskKv, 10);
  const std::int64_t start = std::ssize(prompt_), end = start + std::ssize(canvas_);
  std::int64_t before = 0, after = 0;
  for (std::int64_t layer = 0; layer < config().layers; ++layer) {
    for (std::int64_t head = 0; head < config().kv_heads; ++head) {
      for (const std::int32_t position : entry->Positions(layer, head)) {
        EXPECT_TRUE(position < start || position >= end) << position;
        EXPECT_LT(position, end + std::ssize(suffix_));
        ++(position < start ? before : after);
      }
    }
  }
  EXPECT_GT(before, 0);
  EXPECT_GT(after, 0);
  EXPECT_EQ(before + after, 10 * config().layers * config().kv_heads);
}

TEST_P(InfillTest, EventsCountTheRowsOfTheRequest) {
  const std::int64_t tail = config().shifted_logits ? 1 : 0;
  EXPECT_EQ(Run(Uncached()).front().rows, 30 + 12 + 20);
  DecodeRequest request = Cached(Entry(Selection::kFull, 1));
  EXPECT_EQ(Run(request).front().rows, tail + 12);
  // Of a document's pairs only: the rest of the prompt is recomputed on both sides.
  request.cache = std::make_shared<PrefixView>(request.cache, 21);
  request.prompt.assign(prompt_.begin() + 21, prompt_.end());
  request.suffix = suffix_;
  EXPECT_EQ(Run(request).front().rows, 9 + 12 + 20);
}

TEST_P(InfillTest, RefusesPairsWhereRowsAre) {
  const auto entry = Entry(Selection::kFull, 1);
  DecodeRequest request = Cached(entry);
  request.suffix = suffix_;
  const std::string first = config().shifted_logits ? "29" : "30";
  EXPECT_THAT(AddError(request), HasSubstr("expected pairs before position " + first +
                                           ", which is recomputed, found one at 42"));
  request.suffix.clear();
  request.suffix_tokens = 19;
  EXPECT_THAT(AddError(request), HasSubstr("or at 42 to 60, found one at 61"));
  request.suffix_tokens = 20;
  request.response.clear();
  request.params.gen_length = 13;
  request.params.block_length = 13;
  request.params.steps = 13;
  EXPECT_THAT(AddError(request), HasSubstr("or at 43 to 62, found one at 42"));
}

TEST_P(InfillTest, RefusesWhatIsNoCanvasOrNoSuffix) {
  DecodeRequest request = Uncached();
  request.response.pop_back();
  EXPECT_THAT(AddError(request),
              HasSubstr("response: expected as many ids as masks, 12, found 11"));
  request.response.assign(12, kGiven);
  EXPECT_THAT(AddError(request), HasSubstr("response: expected at least one mask"));
  request.response = canvas_;
  request.response[3] = -2;
  EXPECT_THAT(AddError(request), HasSubstr("response: position 3: expected an id from 0"));
  request = Uncached();
  request.suffix[4] = config().mask_id;
  EXPECT_THAT(AddError(request), HasSubstr("position 46: expected no mask token"));
  request.suffix.pop_back();
  EXPECT_THAT(AddError(request),
              HasSubstr("suffix: expected suffix_tokens 20 ids without a cache, found 19"));
  request = Cached(Entry(Selection::kFull, 1));
  request.suffix = {1, 2};
  EXPECT_THAT(AddError(request), HasSubstr("suffix: expected suffix_tokens 20 ids or none"));
  request.suffix.clear();
  request.suffix_tokens = 79;
  EXPECT_THAT(AddError(request), HasSubstr("prompt_tokens: expected 0 to 29 with 12 masks"));
  request.suffix_tokens = 109;
  EXPECT_THAT(AddError(request), HasSubstr("suffix_tokens: expected 0 to 108 with 12 masks"));
}

TEST_P(InfillTest, RowsAreThePromptOnBothSidesThenTheCanvas) {
  const std::int32_t mask = config().mask_id;
  const std::vector<Row> rows =
      PromptThenResponse(std::vector<std::int32_t>{4, 5}, std::vector<std::int32_t>{mask, 9, mask},
                         config(), std::vector<std::int32_t>{6, 7});
  std::vector<std::int32_t> tokens, positions;
  std::vector<Role> roles;
  for (const Row& row : rows) {
    tokens.push_back(row.token);
    positions.push_back(row.position);
    roles.push_back(row.role);
  }
  const Role p = Role::kPrompt, r = Role::kResponse, c = Role::kCommitted;
  if (config().shifted_logits) {
    EXPECT_THAT(tokens, ElementsAre(4, 6, 7, 5, mask, 9, mask));
    EXPECT_THAT(positions, ElementsAre(0, 5, 6, 1, 2, 3, 4));
    EXPECT_THAT(roles, ElementsAre(p, p, p, r, r, r, r)) << "9 predicts the mask behind it";
  } else {
    EXPECT_THAT(tokens, ElementsAre(4, 5, 6, 7, mask, 9, mask));
    EXPECT_THAT(positions, ElementsAre(0, 1, 5, 6, 2, 3, 4));
    EXPECT_THAT(roles, ElementsAre(p, p, p, p, r, c, r));
  }
}

TEST_P(InfillTest, NoPositionMayBeThereTwice) {
  std::vector<Row> rows = PromptThenResponse(prompt_, canvas_, config(), suffix_);
  EXPECT_TRUE(ValidateRows(config(), rows, 120).ok());
  rows.back().position = rows.front().position;
  EXPECT_THAT(std::string(ValidateRows(config(), rows, 120).message()),
              HasSubstr("rows: expected every position once, found 0 twice"));
}

TEST_P(InfillTest, RefusesWhatHasNoMeaningBesideGivenTokens) {
  DecodeRequest request = Uncached();
  request.params.growth.max_gen_length = 16;
  EXPECT_THAT(AddError(request), HasSubstr("growth.max_gen_length: expected 0 where the whole"));
  request.params.whole_canvas = false;
  EXPECT_THAT(AddError(request), HasSubstr("suffix_tokens: expected 0 with growth, found 20"));
  request.suffix.clear();
  request.suffix_tokens = 0;
  EXPECT_THAT(AddError(request),
              HasSubstr("response: expected nothing but masks with growth, found 6 ids"));
  request.params.growth = {};
  request.params.cfg_scale = 0.5;
  EXPECT_THAT(AddError(request),
              HasSubstr("response: expected nothing but masks with cfg_scale above 0, found 6"));
  request.params.whole_canvas = true;
  EXPECT_THAT(AddError(request), HasSubstr("cfg_scale: expected 0 where the whole canvas"));
}

// What was committed and the bits of its confidence, step by step.
std::vector<std::tuple<std::int64_t, std::int64_t, std::int32_t, float>> Commits(
    const std::vector<StepEvent>& events) {
  std::vector<std::tuple<std::int64_t, std::int64_t, std::int32_t, float>> all;
  for (const StepEvent& event : events) {
    for (const Prediction& p : event.committed) {
      all.emplace_back(event.step, p.position, p.token, p.confidence);
    }
  }
  return all;
}

// A share of 1 computes every row in between too: the plain decoding, its bits, suffix or not.
TEST_P(InfillTest, AResponseCacheOfAllRowsIsThePlainDecoding) {
  const auto entry = Entry(Selection::kMaskKv, 7);
  DecodeRequest document = Cached(std::make_shared<PrefixView>(entry, 21));
  document.prompt.assign(prompt_.begin() + 21, prompt_.end());
  document.suffix = suffix_;
  for (DecodeRequest request : {Uncached(), Cached(entry), document}) {
    const auto plain = Commits(Run(request));
    EXPECT_EQ(plain.size(), 6U);
    request.params.response_every = 3;
    request.params.response_share = 1;
    EXPECT_EQ(Commits(Run(request)), plain);
  }
}

TEST_P(InfillTest, AResponseCacheCountsTheRowsOnBothSides) {
  DecodeRequest request = Uncached();
  request.params.response_every = 2;
  request.params.response_share = 0.25;
  const std::vector<StepEvent> events = Run(request);
  ASSERT_EQ(events.size(), 6U);
  for (std::size_t i = 0; i < events.size(); ++i) {
    EXPECT_EQ(events[i].rows, i % 2 == 0 ? 62 : 16) << "ceil(62 / 4) between";
    EXPECT_EQ(events[i].rows + events[i].reused_rows, 62);
  }
}

// A suffix behind the canvas moves no row: with a mix of weight 0 `remix` shows plain masks, with
// another weight it shows the masks, and nothing else, as something else.
TEST_P(InfillTest, RemixMixesTheMasksAndNoOtherRow) {
  DecodeRequest request = Uncached();
  request.params.rule.rule = decoding::Rule::kRemix;
  request.params.rule.threshold = 1;
  request.params.rule.js_threshold = 1;
  request.params.rule.mix_weight = 0;
  const auto plain = Commits(Run(request));
  request.params.rule.mix_weight = 0.5;
  const auto mixed = Commits(Run(request));
  EXPECT_EQ(plain.size(), 6U);
  EXPECT_EQ(mixed.size(), 6U);
  EXPECT_EQ(plain.front(), mixed.front()) << "nothing is mixed yet";
  EXPECT_NE(plain, mixed);
}

// Ids 1 and 2 in turn; the given ones must be among them, and no end token may follow.
TEST_P(InfillTest, AnAutomatonDescribesTheWholeCanvas) {
  decoding::AutomatonParts parts{.states = 2, .accepting = {0}};
  parts.sets = {{{1, 1}}, {{2, 2}}};
  parts.arcs = {{0, 0, 1}, {1, 1, 0}};
  DecodeRequest request = Uncached();
  request.params.automaton = ValueOrDie(decoding::TokenAutomaton::Make(parts));
  EXPECT_THAT(AddError(request),
              HasSubstr("automaton: expected an accepted answer that holds the given tokens"));
  const std::int32_t mask = config().mask_id;
  request.response = {mask, 2, mask, mask, mask, 2, 1, 2, mask, mask, mask, mask};
  std::vector<std::int32_t> answer;
  Run(request, &answer);
  EXPECT_THAT(answer, ElementsAre(1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2));
  request.params.gen_length = request.params.block_length = request.params.steps = 11;
  request.response.pop_back();
  EXPECT_THAT(AddError(request), HasSubstr("automaton: expected an accepted answer"));
}

INSTANTIATE_TEST_SUITE_P(Families, InfillTest, ::testing::Values("gqa", "dream"));

}  // namespace
}  // namespace maskkv::engine::infill_test
