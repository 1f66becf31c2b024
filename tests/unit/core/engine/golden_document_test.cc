// SPDX-License-Identifier: Apache-2.0
//
// Questions over one document's copy against the float64 NumPy oracle (tests/data/golden/document):
// what a vote over the copy keeps, what votes of several questions keep together, and the answer
// over either, step by step.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/engine/decode.h"
#include "core/engine/document_copy.h"
#include "core/engine/document_vote.h"
#include "core/engine/heap_kv.h"
#include "core/engine/prefill.h"
#include "core/policy/named_policy.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/core/engine/test_model.h"

namespace maskkv::engine::golden_document_test {
namespace {

using nlohmann::json;
using Ids = std::vector<std::int32_t>;

const std::string kFolder = std::string(MASKKV_SOURCE_DIR) + "/tests/data/golden/document/";
constexpr int kThreads = 2;

std::vector<std::string> Names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(kFolder)) {
    names.push_back(entry.path().stem());
  }
  std::sort(names.begin(), names.end());
  return names;
}

json ReadFile(const std::string& name) {
  std::ifstream file(kFolder + name + ".json");
  return json::parse(file);
}

class GoldenDocumentTest : public ::testing::TestWithParam<std::string> {
 protected:
  GoldenDocumentTest()
      : golden_(ReadFile(GetParam())),
        document_(golden_.at("document_ids").get<Ids>()),
        model_(std::string(MASKKV_SOURCE_DIR) + "/" + golden_.at("model").get<std::string>(),
               kernels::DType::kF32, kThreads, 64) {
    const json& p = golden_.at("params");
    params_.gen_length = p.at("gen_length");
    params_.block_length = p.at("block_length");
    params_.steps = p.at("steps");
    params_.ignore_eos = p.at("ignore_eos");
    params_.stop_ids = p.at("stop_ids").get<Ids>();
  }

  EvictionPlan Plan() const {
    EvictionPlan plan;
    const auto parts = policy::ParsePolicy(golden_.at("policy").get<std::string>());
    EXPECT_TRUE(parts.ok()) << parts.status();
    if (parts.ok()) plan.Follow(*parts);
    plan.budget = golden_.at("budget");
    plan.alpha = golden_.at("alpha");
    plan.beta = golden_.at("beta");
    if (policy::NeedsImportance(plan.layer_rule)) {
      plan.importance = golden_.at("profile").get<std::vector<double>>();
    }
    return plan;
  }

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
      request.plan = Plan();
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
    const auto reports = CutDocument(model_.pool, copy, votes, Plan(), entry);
    EXPECT_TRUE(reports.ok()) << reports.status();
    return reports.value_or(std::vector<LayerReport>());
  }

  void CompareKept(const HeapKvEntry& entry, const std::vector<LayerReport>& reports) {
    std::int64_t undecided = 0;
    ASSERT_EQ(reports.size(), golden_.at("kept").size());
    for (std::size_t layer = 0; layer < reports.size(); ++layer) {
      const json& heads = golden_.at("kept").at(layer);
      for (std::size_t head = 0; head < heads.size(); ++head) {
        EXPECT_NEAR(reports[layer].preference[head],
                    golden_.at("preference").at(layer).at(head).get<double>(),
                    golden_.at("bounds").at("preference").get<double>());
        if (!golden_.at("decided").at(layer).at(head).get<bool>()) {
          ++undecided;
          continue;
        }
        const auto kept =
            entry.Positions(static_cast<std::int64_t>(layer), static_cast<std::int64_t>(head));
        EXPECT_EQ(Ids(kept.begin(), kept.end()), heads.at(head).get<Ids>())
            << "layer " << layer << " head " << head;
      }
    }
    EXPECT_LE(undecided, 1);
  }

  const json golden_;
  const Ids document_;
  GenerateParams params_;
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
    const StepEvent event = decoder.Step().front();
    ASSERT_THAT(event.status, testing::IsOk());
    ASSERT_TRUE(step.at("decided").get<bool>()) << "the cases were chosen so";
    const json& committed = step.at("committed");
    ASSERT_EQ(event.committed.size(), committed.size());
    for (std::size_t i = 0; i < committed.size(); ++i) {
      EXPECT_EQ(event.committed[i].position, committed.at(i).at(0));
      EXPECT_EQ(event.committed[i].token, committed.at(i).at(1));
      EXPECT_NEAR(event.committed[i].confidence, committed.at(i).at(2).get<double>(),
                  step.at("bounds").at("confidence").get<double>());
    }
  }
  const std::span<const std::int32_t> canvas = decoder.Find(id)->tokens();
  EXPECT_EQ(Ids(canvas.begin(), canvas.end()), golden_.at("canvas").get<Ids>());
}

INSTANTIATE_TEST_SUITE_P(Cases, GoldenDocumentTest, ::testing::ValuesIn(Names()),
                         [](const auto& case_info) {
                           std::string name = case_info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace maskkv::engine::golden_document_test
