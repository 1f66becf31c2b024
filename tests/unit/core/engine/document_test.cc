// SPDX-License-Identifier: Apache-2.0
//
// A document's copy, forwards over it, votes combined over it: what must hold whatever the oracle
// says (golden_document_test.cc).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/engine/document_copy.h"
#include "core/engine/document_vote.h"
#include "core/engine/heap_kv.h"
#include "core/engine/prefill.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/core/engine/test_model.h"

namespace maskkv::engine::document_test {
namespace {

using ::maskkv::testing::IsOk;
using ::maskkv::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Ids = std::vector<std::int32_t>;

constexpr std::int64_t kMasks = 6;
constexpr std::int64_t kTokens = 300;  // more than a block of rows

void ExpectSameBytes(const HeapKvEntry& a, const HeapKvEntry& b) {
  ASSERT_EQ(a.shape(), b.shape());
  const auto head_bytes = static_cast<std::size_t>(a.shape().head_dim) * SizeOf(a.shape().dtype);
  for (std::int64_t layer = 0; layer < a.shape().layers; ++layer) {
    for (std::int64_t head = 0; head < a.shape().kv_heads; ++head) {
      const auto of_a = a.Positions(layer, head), of_b = b.Positions(layer, head);
      ASSERT_EQ(Ids(of_a.begin(), of_a.end()), Ids(of_b.begin(), of_b.end()))
          << "layer " << layer << " head " << head;
      const auto h = static_cast<std::size_t>(head);
      const kernels::CachedHead &x = a.Layer(layer)[h], &y = b.Layer(layer)[h];
      const std::size_t bytes = of_a.size() * head_bytes;
      EXPECT_EQ(std::memcmp(x.k, y.k, bytes), 0) << "layer " << layer << " head " << head;
      EXPECT_EQ(std::memcmp(x.v, y.v, bytes), 0) << "layer " << layer << " head " << head;
    }
  }
}

class DocumentTest : public ::testing::TestWithParam<const char*> {
 protected:
  DocumentTest() : model_(Folder(), kernels::DType::kF32, 2, 400) {
    for (std::int32_t i = 0; i < kTokens + 9; ++i) prompt_.push_back(7 * i % 41);
  }
  static std::string Folder() {
    return std::string(MASKKV_SOURCE_DIR) + "/tests/data/golden/checkpoints/" + GetParam();
  }
  const model::ModelConfig& config() const { return model_.weights.config(); }

  static EvictionPlan Plan(std::int64_t budget, LayerRule rule = LayerRule::kUniform) {
    EvictionPlan plan;
    plan.layer_rule = rule;
    if (rule == LayerRule::kPool) plan.head_rule = HeadRule::kPool;
    plan.budget = budget;
    return plan;
  }
  static EvictionPlan Whole() {
    EvictionPlan plan;
    plan.selection = Selection::kFull;
    return plan;
  }

  absl::StatusOr<PrefillResult> Run(const EvictionPlan& plan, HeapKvEntry& entry,
                                    const DocumentCopy* document, TestModel& model,
                                    kernels::DType dtype = kernels::DType::kF32) {
    const std::vector<Row> rows = PromptThenMasks(prompt_, kMasks, config());
    PrefillRequest request;
    request.rows = rows;
    request.document = document;
    request.plan = plan;
    request.kv_dtype = dtype;
    return Prefiller(model.transformer).Run(request, entry);
  }
  absl::StatusOr<PrefillResult> Run(const EvictionPlan& plan, HeapKvEntry& entry,
                                    const DocumentCopy* document = nullptr) {
    return Run(plan, entry, document, model_);
  }

  TestModel model_;
  Ids prompt_;
};

INSTANTIATE_TEST_SUITE_P(Families, DocumentTest, ::testing::Values("gqa", "odd", "dream", "moe"));

TEST_P(DocumentTest, TheQuestionThatWasInPlaceFindsItsOwnPrefillAgain) {
  HeapKvEntry whole;
  ASSERT_THAT(Run(Whole(), whole), IsOk());
  for (const std::int64_t tokens : {std::int64_t{1}, std::int64_t{256}, kTokens}) {
    MASKKV_ASSERT_OK_AND_ASSIGN(const DocumentCopy copy, DocumentCopy::Of(whole, tokens));
    for (const EvictionPlan& plan : {Plan(7), Plan(7, LayerRule::kPool), Whole(), Plan(100000)}) {
      HeapKvEntry direct, over;
      MASKKV_ASSERT_OK_AND_ASSIGN(const PrefillResult expected, Run(plan, direct));
      MASKKV_ASSERT_OK_AND_ASSIGN(const PrefillResult found, Run(plan, over, &copy));
      ExpectSameBytes(direct, over);
      EXPECT_EQ(found.kept_mass(), expected.kept_mass());
      EXPECT_EQ(found.prompt_tokens, expected.prompt_tokens);
      EXPECT_EQ(found.masks, expected.masks);
    }
  }
}

TEST_P(DocumentTest, ThreadsChangeNothing) {
  HeapKvEntry whole, one, three;
  ASSERT_THAT(Run(Whole(), whole), IsOk());
  prompt_.back() = 1;  // another question
  MASKKV_ASSERT_OK_AND_ASSIGN(const DocumentCopy copy, DocumentCopy::Of(whole, kTokens));
  TestModel alone(Folder(), kernels::DType::kF32, 1, 400);
  TestModel many(Folder(), kernels::DType::kF32, 3, 400);
  ASSERT_THAT(Run(Plan(9), one, &copy, alone), IsOk());
  ASSERT_THAT(Run(Plan(9), three, &copy, many), IsOk());
  ExpectSameBytes(one, three);
}

TEST_P(DocumentTest, ACopyIsReadAsItWasWritten) {
  HeapKvEntry whole, again;
  ASSERT_THAT(Run(Whole(), whole, nullptr, model_, kernels::DType::kBF16), IsOk());
  MASKKV_ASSERT_OK_AND_ASSIGN(const DocumentCopy copy, DocumentCopy::Of(whole, kTokens));
  const std::int64_t width = config().kv_heads * config().head_dim;
  std::vector<float> kv(static_cast<std::size_t>(kTokens * 2 * width));
  const std::int64_t layer = config().layers - 1;
  copy.ReadLayer(model_.pool, layer, kv.data());
  for (std::int64_t head = 0; head < config().kv_heads; ++head) {
    const kernels::CachedHead& cached = whole.Layer(layer)[static_cast<std::size_t>(head)];
    for (const std::int64_t token : {std::int64_t{0}, kTokens - 1}) {
      for (std::int64_t i = 0; i < config().head_dim; ++i) {
        const std::int64_t at = token * config().head_dim + i;
        const float* row = kv.data() + token * 2 * width + head * config().head_dim + i;
        EXPECT_EQ(row[0], kernels::ToFloat(static_cast<const kernels::Bf16*>(cached.k)[at]));
        EXPECT_EQ(row[width], kernels::ToFloat(static_cast<const kernels::Bf16*>(cached.v)[at]));
      }
    }
  }
}

TEST_P(DocumentTest, OneQuestionsVoteIsItsOwnWhateverTheCombination) {
  HeapKvEntry whole;
  ASSERT_THAT(Run(Whole(), whole), IsOk());
  // No question: the document's pairs are all the candidates there are, but for the tail of a
  // shifted family.
  prompt_.resize(kTokens);
  const std::int64_t tokens = ServableTokens(config(), kTokens);
  MASKKV_ASSERT_OK_AND_ASSIGN(const DocumentCopy copy, DocumentCopy::Of(whole, tokens));
  const std::vector<Row> rows = PromptThenMasks(prompt_, kMasks, config());
  for (const LayerRule rule : {LayerRule::kUniform, LayerRule::kPool}) {
    HeapKvEntry own;
    ASSERT_THAT(Run(Plan(5, rule), own, &copy), IsOk());
    for (const auto how : {VoteCombination::kSum, VoteCombination::kMax, VoteCombination::kMin}) {
      CombinedVotes votes(config().layers, config().kv_heads, tokens, how);
      PrefillForward forward;
      forward.rows = rows;
      forward.document = &copy;
      forward.on_scores = [&](std::int64_t layer, std::span<const float> scores) {
        ASSERT_THAT(votes.Add(layer, scores), IsOk());
      };
      ASSERT_THAT(Prefiller(model_.transformer).RunCuts(forward, {}), IsOk());
      HeapKvEntry cut;
      MASKKV_ASSERT_OK_AND_ASSIGN(const auto reports,
                                  CutDocument(model_.pool, copy, votes, Plan(5, rule), cut));
      ExpectSameBytes(own, cut);
      EXPECT_EQ(std::ssize(reports), config().layers);
    }
  }
}

TEST_P(DocumentTest, WhatCannotBeVotedOverIsRefused) {
  HeapKvEntry whole, part, unused;
  ASSERT_THAT(Run(Whole(), whole), IsOk());
  ASSERT_THAT(Run(Plan(kTokens - 1), part), IsOk());
  const absl::Status partial = DocumentCopy::Of(part, kTokens).status();
  EXPECT_EQ(ErrorReason(partial), "DOCUMENT_NOT_WHOLE");
  EXPECT_THAT(partial, StatusIs(absl::StatusCode::kFailedPrecondition,
                                HasSubstr("layer 0: head 0: expected all 300 pairs, found ")));
  EXPECT_THAT(DocumentCopy::Of(whole, 0).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("found 0")));
  EXPECT_THAT(DocumentCopy::Of(whole, 1000).status(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("expected all 1000")));

  MASKKV_ASSERT_OK_AND_ASSIGN(const DocumentCopy copy, DocumentCopy::Of(whole, kTokens));
  for (const Voters voters : {Voters::kPrompt, Voters::kAll, Voters::kWindow}) {
    EvictionPlan plan = Plan(64);
    plan.voters = voters;
    EXPECT_THAT(Run(plan, unused, &copy).status(),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("voters: expected rows after the document's 300")));
  }
  prompt_.resize(kTokens - 1);
  EXPECT_THAT(Run(Plan(4), unused, &copy).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("rows: row 29")));
}

TEST_P(DocumentTest, OtherShapesAndScalesAreRefused) {
  EntryShape shape{config().layers, config().kv_heads, config().head_dim + 1};
  for (const bool other_shape : {true, false}) {
    if (!other_shape) {
      --shape.head_dim;
      shape.rope_scale = 2;
    }
    HeapKvEntry entry;
    ASSERT_THAT(entry.Begin(shape, 100), IsOk());
    const std::vector<std::int64_t> pairs(static_cast<std::size_t>(shape.kv_heads), 1);
    for (std::int64_t layer = 0; layer < shape.layers; ++layer) {
      MASKKV_ASSERT_OK_AND_ASSIGN(const auto extents, entry.AllocateLayer(layer, pairs));
      for (const HeadExtent& extent : extents) *extent.positions = 0;
    }
    ASSERT_THAT(entry.Finish(), IsOk());
    MASKKV_ASSERT_OK_AND_ASSIGN(const DocumentCopy copy, DocumentCopy::Of(entry, 1));
    HeapKvEntry unused;
    EXPECT_THAT(Run(Plan(4), unused, &copy).status(),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr(other_shape ? "KV heads of width" : "rope_scale 1, found 2")));
  }
}

TEST_P(DocumentTest, CombinedVotesNeedMasksAndLayersThatNothingMeasures) {
  HeapKvEntry whole, unused;
  ASSERT_THAT(Run(Whole(), whole), IsOk());
  MASKKV_ASSERT_OK_AND_ASSIGN(const DocumentCopy copy, DocumentCopy::Of(whole, 2));
  CombinedVotes votes(config().layers, config().kv_heads, 2, VoteCombination::kSum);
  EvictionPlan plan = Plan(1, LayerRule::kOnline);
  EXPECT_THAT(CutDocument(model_.pool, copy, votes, plan, unused).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("found online")));
  plan = Plan(1);
  plan.voters = Voters::kMasksFront;
  EXPECT_THAT(CutDocument(model_.pool, copy, votes, plan, unused).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("masks as voters")));
  EXPECT_THAT(CutDocument(model_.pool, copy, votes, Whole(), unused).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("masks as voters")));
}

TEST(CombinedVotesTest, ScoresAreCombinedPositionByPositionAndTheRestAsOne) {
  const std::vector<float> first{4, 1, 2, 8, 0, 0};                // two heads, three keys
  const std::vector<float> second{1, 3, 1, 1, 16, 5, 0, 2, 2, 2};  // two heads, five keys
  const auto combined = [&](VoteCombination how) {
    CombinedVotes votes(1, 2, 2, how);
    EXPECT_THAT(votes.Add(0, first), IsOk());
    EXPECT_THAT(votes.Add(0, second), IsOk());
    EXPECT_EQ(votes.questions(0), 2);
    return std::vector<float>(votes.Scores(0).begin(), votes.Scores(0).end());
  };
  EXPECT_THAT(combined(VoteCombination::kSum), ElementsAre(5, 4, 20, 13, 0, 6));
  EXPECT_THAT(combined(VoteCombination::kMax), ElementsAre(4, 3, 18, 8, 0, 6));
  EXPECT_THAT(combined(VoteCombination::kMin), ElementsAre(1, 1, 2, 5, 0, 0));
}

TEST(CombinedVotesTest, ScoresThatAreNoNumbersAreRefused) {
  CombinedVotes votes(2, 1, 1, VoteCombination::kMax);
  const std::vector<float> scores{1, std::numeric_limits<float>::quiet_NaN()};
  const absl::Status status = votes.Add(1, scores);
  EXPECT_EQ(ErrorReason(status), "NOT_FINITE");
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kDataLoss, HasSubstr("layer 1")));
  EXPECT_EQ(votes.questions(1), 0);
}

}  // namespace
}  // namespace maskkv::engine::document_test
