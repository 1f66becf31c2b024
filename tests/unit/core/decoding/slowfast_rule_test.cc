// SPDX-License-Identifier: Apache-2.0
//
// SlowFast by hand, and against the NumPy oracle (python/maskkv_oracle/slowfast.py), which replays
// a block from its beginning in every step: tests/data/golden/slowfast.json.
#include "core/decoding/slowfast_rule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

namespace maskkv::decoding {
namespace {

using ::testing::ElementsAre;

class SlowFastRuleTest : public ::testing::Test {
 protected:
  // The canvas positions that the next step of a block of these scores commits; one score for each
  // position, those that are decided are not looked at.
  std::vector<std::int64_t> Step(const std::vector<float>& scores) {
    if (decided_.size() != scores.size()) decided_.assign(scores.size(), false);
    std::vector<Prediction> predictions;
    for (std::size_t i = 0; i < scores.size(); ++i) {
      if (decided_[i]) continue;
      predictions.push_back(
          {.position = first_ + static_cast<std::int64_t>(i), .score = scores[i]});
    }
    std::vector<std::int64_t> positions;
    for (const std::size_t i : rule_->Choose({.block_step = step_++}, predictions)) {
      positions.push_back(predictions[i].position);
      decided_[static_cast<std::size_t>(positions.back() - first_)] = true;
    }
    return positions;
  }

  void NextBlock(std::int64_t first) {
    first_ = first;
    step_ = 0;
    decided_.clear();
  }

  std::unique_ptr<CommitRule> rule_ = MakeCommitRule({.rule = Rule::kSlowFast,
                                                      .threshold = 0.8,
                                                      .span_threshold = 0.5,
                                                      .explore_steps = 3,
                                                      .stable_steps = 2});
  std::int64_t first_ = 0;
  std::int64_t step_ = 0;
  std::vector<bool> decided_;
};

TEST_F(SlowFastRuleTest, CommitsOneByOneUntilTheEndIsStableThenWhatLiesBeforeIt) {
  EXPECT_THAT(Step({0.6F, 0.5F, 0.9F, 0.7F, 0.4F, 0.1F}), ElementsAre(2));  // estimate 4
  EXPECT_THAT(Step({0.9F, 0.7F, 0, 0.5F, 0.4F, 0.1F}), ElementsAre(0));     // 4 again
  // 4 and 5 lie behind the end, however sure they are.
  EXPECT_THAT(Step({0, 0.3F, 0, 0.2F, 0.9F, 0.9F}), ElementsAre(1)) << "the surest, always";
  EXPECT_THAT(Step({0, 0, 0, 0.1F, 0.9F, 0.9F}), ElementsAre(3));
  // The span is decided: the next step is slow again.
  EXPECT_THAT(Step({0, 0, 0, 0, 0.9F, 0.95F}), ElementsAre(5));
  EXPECT_THAT(Step({0, 0, 0, 0, 0.9F, 0}), ElementsAre(4));
}

TEST_F(SlowFastRuleTest, EndsTheSpanAtTheMeanWhenEstimatesDoNotAgreeInTime) {
  EXPECT_THAT(Step({0.6F, 0, 0, 0, 0, 0.5F, 0.4F}), ElementsAre(0));  // 6
  EXPECT_THAT(Step({0, 0.3F, 0.2F, 0, 0, 0, 0}), ElementsAre(1));     // none: 2
  EXPECT_THAT(Step({0, 0, 0, 0, 0, 0.7F, 0.6F}), ElementsAre(5));     // 7: mean 4.5
  EXPECT_THAT(Step({0, 0, 0.9F, 0.8F, 1, 0, 1}), ElementsAre(2, 3)) << "those before 4";
  EXPECT_THAT(Step({0, 0, 0, 0, 0.6F, 0, 0.9F}), ElementsAre(6)) << "slow again";
}

TEST_F(SlowFastRuleTest, ASpanWithoutMasksIsLeftAtOnce) {
  rule_ = MakeCommitRule({.rule = Rule::kSlowFast,
                          .threshold = 0.8,
                          .span_threshold = 0.5,
                          .explore_steps = 1,
                          .stable_steps = 3});
  EXPECT_THAT(Step({0.6F, 0, 0, 0}), ElementsAre(0));  // ends at 1, which is decided
  EXPECT_THAT(Step({0, 0.6F, 0.9F, 0.9F}), ElementsAre(2)) << "slow: not all that are sure";
  EXPECT_THAT(Step({0, 0.1F, 0, 0.9F}), ElementsAre(3)) << "fast, before 4";
}

TEST_F(SlowFastRuleTest, ABlockBeginsACycle) {
  EXPECT_THAT(Step({0.9F, 0.6F}), ElementsAre(0));
  EXPECT_THAT(Step({0, 0.9F}), ElementsAre(1));
  NextBlock(2);
  EXPECT_THAT(Step({0.9F, 0.9F, 0.9F}), ElementsAre(2)) << "slow";
  EXPECT_THAT(Step({0, 0.9F, 0.9F}), ElementsAre(3)) << "slow: two estimates are needed";
  EXPECT_THAT(Step({0, 0, 0.1F}), ElementsAre(4));
}

TEST_F(SlowFastRuleTest, ADeviationOfOneIsNoAgreement) {
  EXPECT_THAT(Step({0.1F, 0.2F, 0.3F, 0.9F, 0.6F}), ElementsAre(3));  // 5
  EXPECT_THAT(Step({0.1F, 0.2F, 0.9F, 0, 0}), ElementsAre(2));        // 3: deviation 1
  EXPECT_THAT(Step({0.1F, 0.2F, 0, 0, 0.9F}), ElementsAre(4)) << "slow still";
}

TEST(GoldenSlowFast, WholeBlocks) {
  const nlohmann::json golden =
      nlohmann::json::parse(std::ifstream(MASKKV_SOURCE_DIR "/tests/data/golden/slowfast.json"));
  std::size_t bulk = 0;
  for (const nlohmann::json& expected : golden.at("cases")) {
    const auto rule = MakeCommitRule({.rule = Rule::kSlowFast,
                                      .threshold = expected.at("threshold"),
                                      .span_threshold = expected.at("span_threshold"),
                                      .explore_steps = expected.at("explore_steps"),
                                      .stable_steps = expected.at("stable_steps")});
    std::int64_t taken = 0;
    for (const nlohmann::json& step : expected.at("steps")) {
      SCOPED_TRACE(step.dump());
      const auto positions = step.at("positions").get<std::vector<std::int64_t>>();
      const auto scores = step.at("scores").get<std::vector<float>>();
      std::vector<Prediction> predictions;
      for (std::size_t i = 0; i < positions.size(); ++i) {
        predictions.push_back({.position = positions[i], .score = scores[i]});
      }
      const std::vector<std::size_t> chosen =
          rule->Choose({.step = taken++, .block_step = step.at("block_step")}, predictions);
      EXPECT_EQ(chosen, step.at("committed").get<std::vector<std::size_t>>());
      if (chosen.size() > 1) ++bulk;
    }
  }
  EXPECT_GT(bulk, 15U) << "the cases are about bulk too";
}

}  // namespace
}  // namespace maskkv::decoding
