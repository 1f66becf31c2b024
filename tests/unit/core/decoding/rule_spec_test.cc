// SPDX-License-Identifier: Apache-2.0
#include "core/decoding/rule_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "tests/support/status_matchers.h"

namespace maskkv::decoding {
namespace {

using ::testing::HasSubstr;

TEST(RuleSpec, ANameAloneIsTheRuleWithItsDefaults) {
  for (const Rule rule : AllRules()) {
    MASKKV_ASSERT_OK_AND_ASSIGN(const RuleParams params, ParseRuleSpec(Name(rule)));
    EXPECT_EQ(params, RuleParams{.rule = rule});
  }
}

TEST(RuleSpec, ReadsTheMainParameterAndNamedOnes) {
  MASKKV_ASSERT_OK_AND_ASSIGN(RuleParams params, ParseRuleSpec("threshold:0.75"));
  EXPECT_EQ(params, (RuleParams{.rule = Rule::kThreshold, .threshold = 0.75}));
  MASKKV_ASSERT_OK_AND_ASSIGN(params, ParseRuleSpec("factor:2"));
  EXPECT_EQ(params, (RuleParams{.rule = Rule::kFactor, .factor = 2}));
  MASKKV_ASSERT_OK_AND_ASSIGN(params,
                              ParseRuleSpec("hierarchical:0.95:low_threshold=0.5:confidence=raw"));
  EXPECT_EQ(params, (RuleParams{.rule = Rule::kHierarchical,
                                .source = ConfidenceSource::kRaw,
                                .threshold = 0.95,
                                .low_threshold = 0.5}));
  MASKKV_ASSERT_OK_AND_ASSIGN(params, ParseRuleSpec("entropy:top_k=40:top_p=0.9:alg_temp=0.1"));
  EXPECT_EQ(params,
            (RuleParams{.rule = Rule::kEntropy, .top_p = 0.9, .top_k = 40, .alg_temp = 0.1}));
}

TEST(RuleSpec, WhatIsNotNamedIsAsInTheBase) {
  const RuleParams base{.rule = Rule::kFactor, .top_p = 0.5, .threshold = 0.6};
  MASKKV_ASSERT_OK_AND_ASSIGN(const RuleParams params, ParseRuleSpec("threshold", base));
  EXPECT_EQ(params, (RuleParams{.rule = Rule::kThreshold, .top_p = 0.5, .threshold = 0.6}));
}

TEST(RuleSpec, IsReadBackAsWhatItWasMadeOf) {
  for (const Rule rule : AllRules()) {
    RuleParams params{.rule = rule};
    EXPECT_EQ(ParseRuleSpec(RuleSpec(params)).value(), params) << RuleSpec(params);
    // A value for every parameter: its range holds numbers below a half and the integer 3.
    double value = 0.1 + 0.2;  // no short decimal
    for (const Parameter& parameter : AllParameters()) {
      if (const auto* real = std::get_if<double RuleParams::*>(&parameter.field)) {
        params.*(*real) = value;
        value /= 3;
      } else {
        params.*std::get<std::int64_t RuleParams::*>(parameter.field) = 3;
      }
    }
    params.source = ConfidenceSource::kFiltered;
    EXPECT_EQ(ParseRuleSpec(RuleSpec(params)).value(), params) << RuleSpec(params);
  }
}

TEST(RuleSpec, IsShort) {
  EXPECT_EQ(RuleSpec({}), "low_confidence");
  EXPECT_EQ(RuleSpec({.rule = Rule::kThreshold}), "threshold:0.9");
  EXPECT_EQ(RuleSpec({.rule = Rule::kFactor}), "factor:1");
  EXPECT_EQ(RuleSpec({.rule = Rule::kPrefix, .top_k = 5, .threshold = 0.25}),
            "prefix:0.25:top_k=5");
}

TEST(RuleSpec, RefusesWhatItDoesNotUnderstand) {
  const auto error = [](std::string_view text) {
    const absl::Status status = ParseRuleSpec(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    return std::string(status.message());
  };
  EXPECT_THAT(error(""), HasSubstr("rule: expected one of low_confidence, "));
  EXPECT_THAT(error("greedy"), HasSubstr("found \"greedy\""));
  EXPECT_EQ(error("low_confidence:0.5"),
            "rule: expected NAME=VALUE after low_confidence:, found 0.5");
  EXPECT_EQ(error("threshold:high"), "threshold: expected a finite number, found high");
  EXPECT_EQ(error("threshold:"), "threshold: expected a finite number, found nothing");
  EXPECT_EQ(error("threshold:nan"), "threshold: expected a finite number, found nan");
  EXPECT_EQ(error("threshold:1.5"), "threshold: expected a number from 0 to 1, found 1.5");
  EXPECT_EQ(error("threshold:top_k=1.5"), "top_k: expected an integer, found 1.5");
  EXPECT_THAT(error("threshold:speed=2"), HasSubstr("parameter: expected one of top_p, top_k, "));
  EXPECT_EQ(error("threshold:confidence=both"),
            "confidence: expected one of rule, raw, filtered, found both");
}

}  // namespace
}  // namespace maskkv::decoding
