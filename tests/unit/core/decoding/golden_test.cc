// SPDX-License-Identifier: Apache-2.0
//
// Rules against the NumPy oracle (python/maskkv_oracle/rules.py): tests/data/golden/decoding.json.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/decoding/commit_rule.h"
#include "core/decoding/row_choice.h"

namespace maskkv::decoding {
namespace {

const nlohmann::json& Golden() {
  static const auto* const golden = new nlohmann::json(
      nlohmann::json::parse(std::ifstream(MASKKV_SOURCE_DIR "/tests/data/golden/decoding.json")));
  return *golden;
}

RuleParams ParamsOf(const nlohmann::json& golden) {
  RuleParams params;
  params.rule = ParseRule(golden.at("rule").get<std::string>()).value();
  params.top_p = golden.value("top_p", params.top_p);
  params.top_k = golden.value("top_k", params.top_k);
  params.eps = golden.value("eps", params.eps);
  params.alg_temp = golden.value("alg_temp", params.alg_temp);
  params.threshold = golden.value("threshold", params.threshold);
  params.low_threshold = golden.value("low_threshold", params.low_threshold);
  params.factor = golden.value("factor", params.factor);
  if (golden.contains("source") && !golden.at("source").is_null()) {
    params.source =
        golden.at("source") == "raw" ? ConfidenceSource::kRaw : ConfidenceSource::kFiltered;
  }
  return params;
}

TEST(GoldenRows, TokensConfidencesAndScores) {
  for (const nlohmann::json& golden : Golden().at("rows")) {
    SCOPED_TRACE(golden.dump());
    std::vector<float> logits;
    for (const nlohmann::json& value : golden.at("logits")) {
      logits.push_back(value.is_null() ? -std::numeric_limits<float>::infinity()
                                       : value.get<float>());
    }
    const auto forbidden = golden.at("forbidden").get<std::vector<std::int32_t>>();
    const RowSampling sampling{.rule = ParamsOf(golden),
                               .temperature = golden.at("temperature"),
                               .seed = golden.at("seed"),
                               .step = golden.at("step"),
                               .forbidden = forbidden};
    const RowChoice choice = ChooseFromRow(sampling, golden.at("position"), logits);
    ASSERT_TRUE(choice.valid);
    EXPECT_EQ(choice.token, golden.at("token").get<std::int32_t>());
    // Both sides compute in f64 from the same f32 logits: 13 terms, each rounded a few times.
    const double tolerance = 64 * std::numeric_limits<double>::epsilon();
    const double confidence = golden.at("confidence");
    EXPECT_NEAR(choice.confidence, confidence, tolerance);
    EXPECT_NEAR(choice.log_probability, std::log(confidence), tolerance / confidence);
    EXPECT_NEAR(choice.score, golden.at("score").get<double>(), tolerance * 16);
  }
}

TEST(GoldenCommits, IndicesOfEveryRule) {
  for (const nlohmann::json& golden : Golden().at("commits")) {
    SCOPED_TRACE(golden.dump());
    const auto positions = golden.at("positions").get<std::vector<std::int64_t>>();
    const auto scores = golden.at("scores").get<std::vector<float>>();
    std::vector<Prediction> predictions;
    for (std::size_t i = 0; i < positions.size(); ++i) {
      predictions.push_back({.position = positions[i], .score = scores[i]});
    }
    const StepContext context{.step = golden.at("step"),
                              .block_step = golden.at("block_step"),
                              .block_steps = golden.at("block_steps"),
                              .block_masks = golden.at("block_masks"),
                              .first_position = golden.at("first_position"),
                              .seed = golden.at("seed")};
    EXPECT_THAT(
        MakeCommitRule(ParamsOf(golden))->Choose(context, predictions),
        ::testing::ElementsAreArray(golden.at("committed").get<std::vector<std::size_t>>()));
  }
}

}  // namespace
}  // namespace maskkv::decoding
