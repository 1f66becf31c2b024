// SPDX-License-Identifier: Apache-2.0
//
// Questions over one document's copy against the float64 NumPy oracle (tests/data/golden/document):
// what a vote over the copy keeps, what votes of several questions keep together, and the answer
// over either, step by step.
#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/engine/decode.h"
#include "core/engine/document_copy.h"
#include "core/engine/document_vote.h"
#include "core/engine/heap_kv.h"
#include "core/engine/prefill.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/core/engine/golden_file.h"
#include "tests/unit/core/engine/test_model.h"

namespace maskkv::engine::golden_document_test {
namespace {

using nlohmann::json;
using Ids = std::vector<std::int32_t>;

const std::string kFolder = CommittedGolden("document");
constexpr int kThreads = 2;

class GoldenDocumentTest : public ::testing::TestWithParam<std::string> {
 protected:
  GoldenDocumentTest()
      : golden_(ReadGolden(kFolder, GetParam())),
        document_(golden_.at("document_ids").get<Ids>()),
        params_(GoldenParams(golden_)),
        model_(GoldenModel(golden_), kernels::DType::kF32, kThreads, 64) {}

  Ids Prompt(std::size_t question) const {
    Ids prompt = document_;
    for (const json& id : golden_.at("questions").at(question)) prompt.push_back(id);
    return prompt;
  }
  std::size_t LastQuestion() const { return golden_.at("questions").size() - 1; }

  // The pairs of a prefill of document + the first question, all of them.
  HeapKvEntry WholeEntry() {
    const std::vector<Row> rows =
        PromptThenMasks(Prompt(0), params_.gen_length, model_.weights.config());
    PrefillRequest request;
    request.rows = rows;
    request.plan.selection = Selection::kFull;
    HeapKvEntry entry;
    EXPECT_THAT(Prefiller(model_.transformer).Run(request, entry).status(), testing::IsOk());
    return entry;
  }

  // What the last question's own vote keeps, or what the first ones keep together.
  std::vector<LayerReport> VoteOver(const DocumentCopy& copy, HeapKvEntry& entry) {
    Prefiller prefiller(model_.transformer);
    PrefillRequest request;
    request.document = &copy;
    if (golden_.at("combination").is_null()) {
      const std::vector<Row> rows =
          PromptThenMasks(Prompt(LastQuestion()), params_.gen_length, model_.weights.config());
      request.rows = rows;
      request.plan = GoldenPlan(golden_);
      const auto result = prefiller.Run(request, entry);
      EXPECT_TRUE(result.ok()) << result.status();
      return result.ok() ? result->layers : std::vector<LayerReport>();
    }
    const std::string how = golden_.at("combination");
    const model::ModelConfig& config = model_.weights.config();
    CombinedVotes votes(config.layers, config.kv_heads, copy.tokens(),
                        how == "sum"   ? VoteCombination::kSum
                        : how == "max" ? VoteCombination::kMax
                                       : VoteCombination::kMin);
    for (std::size_t question = 0; question < golden_.at("voters"); ++question) {
      const std::vector<Row> rows = PromptThenMasks(Prompt(question), params_.gen_length, config);
      request.rows = rows;
      request.on_scores = [&](std::int64_t layer, std::span<const float> scores) {
        EXPECT_THAT(votes.Add(layer, scores), testing::IsOk());
      };
      EXPECT_THAT(prefiller.RunCuts(request, {}).status(), testing::IsOk());
    }
    const auto reports = CutDocument(model_.pool, copy, votes, GoldenPlan(golden_), entry);
    EXPECT_TRUE(reports.ok()) << reports.status();
    return reports.value_or(std::vector<LayerReport>());
  }

  void CompareKept(const HeapKvEntry& entry, const std::vector<LayerReport>& reports) {
    ASSERT_EQ(reports.size(), golden_.at("kept").size());
    for (std::size_t layer = 0; layer < reports.size(); ++layer) {
      for (std::size_t head = 0; head < golden_.at("kept").at(layer).size(); ++head) {
        EXPECT_NEAR(reports[layer].preference[head],
                    golden_.at("preference").at(layer).at(head).get<double>(),
                    golden_.at("bounds").at("preference").get<double>());
      }
    }
    EXPECT_LE(ExpectKept(entry, golden_.at("kept"), golden_.at("decided")), 1);
  }

  const json golden_;
  const Ids document_;
  const GenerateParams params_;
  TestModel model_;
};

TEST_P(GoldenDocumentTest, VotesAndAnswersOverTheCopyAreTheOracles) {
  const HeapKvEntry whole = WholeEntry();
  MASKKV_ASSERT_OK_AND_ASSIGN(const DocumentCopy copy,
                              DocumentCopy::Of(whole, std::ssize(document_)));
  const auto entry = std::make_shared<HeapKvEntry>();
  const std::vector<LayerReport> reports = VoteOver(copy, *entry);
  CompareKept(*entry, reports);
  if (HasFatalFailure()) return;

  const Ids prompt = Prompt(LastQuestion());
  DecodeRequest request;
  request.prompt_tokens = std::ssize(prompt);
  request.params = params_;
  request.cache = entry;
  request.prompt = golden_.at("combination").is_null()
                       ? RecomputedTail(model_.weights.config(), prompt)
                       : Ids(prompt.begin() + std::ssize(document_), prompt.end());
  Decoder decoder(model_.transformer);
  MASKKV_ASSERT_OK_AND_ASSIGN(const RequestId id, decoder.Add(std::move(request)));
  for (const json& step : golden_.at("steps")) {
    ASSERT_EQ(decoder.running(), 1);
    ASSERT_NO_FATAL_FAILURE(ExpectStep(decoder.Step().front(), step));
  }
  const std::span<const std::int32_t> canvas = decoder.Find(id)->tokens();
  EXPECT_EQ(Ids(canvas.begin(), canvas.end()), golden_.at("canvas").get<Ids>());
}

INSTANTIATE_TEST_SUITE_P(Cases, GoldenDocumentTest, ::testing::ValuesIn(GoldenNames(kFolder)),
                         GoldenTestName);

}  // namespace
}  // namespace maskkv::engine::golden_document_test
