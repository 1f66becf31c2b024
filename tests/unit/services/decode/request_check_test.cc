// SPDX-License-Identifier: Apache-2.0
#include "services/decode/request_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <string>

#include "core/base/error.h"
#include "core/decoding/rule_spec.h"
#include "maskkv/v1/decode.pb.h"
#include "tests/support/status_matchers.h"

namespace maskkv::decode {
namespace {

RequestLimits Limits() {
  RequestLimits limits;
  limits.max_gen_length = 256;
  limits.max_samples = 8;
  limits.stop_ids = {3, 5};
  limits.mask_id = 90;
  limits.vocabulary = 100;
  return limits;
}

v1::GenerateRequest Request() {
  v1::GenerateRequest request;
  request.mutable_prompt()->mutable_tokens()->add_ids(1);
  return request;
}

TEST(RequestCheckTest, AbsentFieldsTakeTheDefaultsOfTheContract) {
  MASKKV_ASSERT_OK_AND_ASSIGN(const CheckedRequest checked, CheckRequest(Request(), Limits()));
  EXPECT_EQ(checked.params.gen_length, 32);
  EXPECT_EQ(checked.params.block_length, 8);
  EXPECT_EQ(checked.params.steps, 32);
  EXPECT_EQ(checked.params.temperature, 0);
  EXPECT_EQ(checked.params.stop_ids, (std::vector<std::int32_t>{3, 5}));
  EXPECT_TRUE(checked.use_cache);
  EXPECT_FALSE(checked.reused);
  EXPECT_EQ(checked.samples, 1);
  EXPECT_EQ(checked.keep_entry.count(), 0);
}

TEST(RequestCheckTest, ALengthThatEightDoesNotDivideIsOneBlock) {
  v1::GenerateRequest request = Request();
  request.mutable_sampler()->set_gen_length(12);
  MASKKV_ASSERT_OK_AND_ASSIGN(const CheckedRequest checked, CheckRequest(request, Limits()));
  EXPECT_EQ(checked.params.block_length, 12);
  EXPECT_EQ(checked.params.steps, 12);
}

TEST(RequestCheckTest, AHandleIsReadOnlyWhenItsPairsAreReused) {
  v1::GenerateRequest request = Request();
  v1::Handle& handle = *request.mutable_handle();
  handle.set_owner(std::string("cache:1"));
  handle.set_epoch(7);
  handle.set_entry_id(9);
  handle.set_version(1);
  handle.set_nonce(11);
  MASKKV_ASSERT_OK_AND_ASSIGN(CheckedRequest checked, CheckRequest(request, Limits()));
  EXPECT_FALSE(checked.reused);
  request.set_reuse(v1::REUSE_KEPT);
  MASKKV_ASSERT_OK_AND_ASSIGN(checked, CheckRequest(request, Limits()));
  EXPECT_EQ(*checked.reused, (arena::Handle{"cache:1", 7, 9, 1, 11}));
  EXPECT_FALSE(checked.votes_over);
  request.set_reuse(v1::REUSE_VOTE_OVER);
  MASKKV_ASSERT_OK_AND_ASSIGN(checked, CheckRequest(request, Limits()));
  EXPECT_FALSE(checked.reused) << "the prefill service reads it";
  EXPECT_TRUE(checked.votes_over);
}

TEST(RequestCheckTest, EveryRuleIsTakenByName) {
  for (const decoding::Rule rule : decoding::AllRules()) {
    v1::GenerateRequest request = Request();
    request.mutable_sampler()->set_rule(std::string(decoding::Name(rule)));
    MASKKV_ASSERT_OK_AND_ASSIGN(const CheckedRequest checked, CheckRequest(request, Limits()));
    EXPECT_EQ(checked.params.rule, decoding::RuleParams{.rule = rule});
    EXPECT_EQ(checked.params.block_length, decoding::HasBlocks(rule) ? 8 : 32);
    // Steps are for those that go by them.
    request.mutable_sampler()->set_steps(16);
    EXPECT_EQ(CheckRequest(request, Limits()).ok(), decoding::IsScheduled(rule));
  }
}

// What RuleParams may hold is a field of the contract, under the same name.
TEST(RequestCheckTest, EveryParameterOfRulesIsAField) {
  for (const decoding::Parameter& parameter : decoding::AllParameters()) {
    v1::GenerateRequest request = Request();
    v1::Sampler& sampler = *request.mutable_sampler();
    const auto* const field =
        v1::Sampler::descriptor()->FindFieldByName(std::string(parameter.name));
    ASSERT_NE(field, nullptr) << parameter.name;
    decoding::RuleParams expected;
    if (const auto* real = std::get_if<double decoding::RuleParams::*>(&parameter.field)) {
      expected.*(*real) = 0.25;
      sampler.GetReflection()->SetDouble(&sampler, field, 0.25);
    } else {
      expected.*std::get<std::int64_t decoding::RuleParams::*>(parameter.field) = 7;
      sampler.GetReflection()->SetInt64(&sampler, field, 7);
    }
    MASKKV_ASSERT_OK_AND_ASSIGN(const CheckedRequest checked, CheckRequest(request, Limits()));
    EXPECT_EQ(checked.params.rule, expected) << parameter.name;
  }
}

TEST(RequestCheckTest, ZeroIsAThresholdAndNotItsAbsence) {
  v1::GenerateRequest request = Request();
  request.mutable_sampler()->set_threshold(0);
  request.mutable_sampler()->set_confidence_source(v1::CONFIDENCE_SOURCE_RAW);
  MASKKV_ASSERT_OK_AND_ASSIGN(const CheckedRequest checked, CheckRequest(request, Limits()));
  EXPECT_EQ(checked.params.rule.threshold, 0);
  EXPECT_EQ(checked.params.rule.source, decoding::ConfidenceSource::kRaw);
}

TEST(RequestCheckTest, AResponseCacheIsForEveryKindOfRequest) {
  v1::GenerateRequest request = Request();
  MASKKV_ASSERT_OK_AND_ASSIGN(CheckedRequest checked, CheckRequest(request, Limits()));
  EXPECT_FALSE(checked.params.caches_response());
  request.mutable_sampler()->set_response_every(5);
  request.set_cache(v1::CACHE_NONE);
  MASKKV_ASSERT_OK_AND_ASSIGN(checked, CheckRequest(request, Limits()));
  EXPECT_EQ(checked.params.response_every, 5);
  EXPECT_EQ(checked.params.response_share, 0.25);
  request.mutable_sampler()->set_response_share(0);
  EXPECT_EQ(CheckRequest(request, Limits()).status().message(),
            "response_share: expected above 0, at most 1, found 0");
  request.mutable_sampler()->set_response_share(0.5);
  request.mutable_sampler()->set_response_every(-1);
  EXPECT_EQ(CheckRequest(request, Limits()).status().message(),
            "response_every: expected 0 to 16777216, found -1");
}

TEST(RequestCheckTest, ABadParameterIsNamedWithWhatWasExpectedAndFound) {
  v1::GenerateRequest request = Request();
  request.mutable_sampler()->set_rule("threshold");
  request.mutable_sampler()->set_threshold(1.5);
  EXPECT_EQ(CheckRequest(request, Limits()).status().message(),
            "threshold: expected a number from 0 to 1, found 1.5");
  request.mutable_sampler()->clear_threshold();
  request.mutable_sampler()->set_steps(16);
  EXPECT_EQ(CheckRequest(request, Limits()).status().message(),
            "steps: expected none with rule threshold, which runs until nothing is masked, found "
            "16");
}

TEST(RequestCheckTest, AnAnswerThatFillsInIsOneBlockAndAllOfItsCanvas) {
  v1::GenerateRequest request = Request();
  request.clear_sampler();
  MASKKV_ASSERT_OK_AND_ASSIGN(CheckedRequest checked,
                              CheckRequest(request, Limits(), {1, 0, 0, 2, 0, 3}));
  EXPECT_THAT(checked.canvas, ::testing::ElementsAre(1, 0, 0, 2, 0, 3));
  EXPECT_TRUE(checked.params.whole_canvas);
  EXPECT_EQ(checked.params.gen_length, 6);
  EXPECT_EQ(checked.params.block_length, 6);
  EXPECT_EQ(checked.params.steps, 6);
  request.mutable_sampler()->set_gen_length(6);
  request.mutable_sampler()->set_block_length(3);
  EXPECT_EQ(CheckRequest(request, Limits(), {1, 0, 0, 2, 0, 3})->params.block_length, 3);
  EXPECT_EQ(ErrorReason(CheckRequest(request, Limits(), {1, 0}).status()), "BAD_SAMPLER");
  // A suffix alone: masks between two parts of the prompt.
  request.clear_sampler();
  request.mutable_prompt()->mutable_suffix()->set_text("x");
  MASKKV_ASSERT_OK_AND_ASSIGN(checked, CheckRequest(request, Limits()));
  EXPECT_TRUE(checked.canvas.empty());
  EXPECT_TRUE(checked.params.whole_canvas);
  EXPECT_EQ(checked.params.block_length, checked.params.gen_length);
  // What has no meaning beside either.
  request.mutable_sampler()->set_cfg_scale(1);
  EXPECT_EQ(ErrorReason(CheckRequest(request, Limits()).status()), "BAD_SAMPLER");
  request.clear_sampler();
  request.mutable_sampler()->mutable_growth()->set_max_gen_length(64);
  EXPECT_EQ(ErrorReason(CheckRequest(request, Limits()).status()), "BAD_SAMPLER");
  request.clear_sampler();
  request.set_reuse(v1::REUSE_VOTE_OVER);
  request.mutable_handle()->set_owner(std::string("cache:1"));
  request.mutable_handle()->set_entry_id(9);
  request.mutable_handle()->set_version(1);
  EXPECT_EQ(ErrorReason(CheckRequest(request, Limits()).status()), "BAD_REUSE");
}

// Two ids of 10 to 20 or 30.
v1::GenerateRequest WithAutomaton() {
  v1::GenerateRequest request = Request();
  v1::TokenAutomaton& automaton = *request.mutable_automaton();
  automaton.set_states(3);
  automaton.add_accepting(2);
  for (const int bound : {10, 20, 30, 30}) {
    if (automaton.sets_size() == 0) automaton.add_sets();
    automaton.mutable_sets(0)->add_ranges(bound);
  }
  for (const int number : {0, 0, 1, 1, 0, 2}) automaton.add_arcs(number);
  return request;
}

TEST(RequestCheckTest, AnAutomatonIsTakenAsItIs) {
  MASKKV_ASSERT_OK_AND_ASSIGN(CheckedRequest checked, CheckRequest(Request(), Limits()));
  EXPECT_EQ(checked.params.automaton, nullptr);
  MASKKV_ASSERT_OK_AND_ASSIGN(checked, CheckRequest(WithAutomaton(), Limits()));
  const decoding::TokenAutomaton& automaton = *checked.params.automaton;
  EXPECT_EQ(automaton.states(), 3);
  EXPECT_EQ(automaton.start(), 0);
  EXPECT_TRUE(automaton.accepts(2));
  ASSERT_EQ(automaton.ids(0).size(), 2U);
  EXPECT_EQ(automaton.ids(0)[1], (decoding::IdRange{30, 30}));
  ASSERT_EQ(automaton.arcs_from(1).size(), 1U);
  EXPECT_EQ(automaton.arcs_from(1)[0], (decoding::AutomatonArc{1, 0, 2}));
}

TEST(RequestCheckTest, ABadAutomatonIsRefusedBeforeAnythingRuns) {
  const auto refusal = [](const std::function<void(v1::GenerateRequest&)>& spoil) {
    v1::GenerateRequest request = WithAutomaton();
    spoil(request);
    const absl::Status status = CheckRequest(request, Limits()).status();
    EXPECT_EQ(ErrorReason(status), "BAD_AUTOMATON") << status;
    return std::string(status.message());
  };
  EXPECT_EQ(refusal([](auto& r) { r.mutable_automaton()->Clear(); }),
            "automaton: states: expected 1 to 65536, found 0");
  EXPECT_EQ(refusal([](auto& r) { r.mutable_automaton()->add_arcs(1); }),
            "automaton: arcs: expected three numbers each, found 7 numbers");
  EXPECT_EQ(refusal([](auto& r) { r.mutable_automaton()->mutable_sets(0)->add_ranges(1); }),
            "automaton: set 0: expected two numbers a range, found 5 numbers");
  EXPECT_EQ(refusal([](auto& r) { r.mutable_automaton()->mutable_sets(0)->set_ranges(3, 100); }),
            "automaton: set 0: expected ids from 0 to 99, found 100");
  EXPECT_EQ(refusal([](auto& r) { r.mutable_automaton()->mutable_sets(0)->set_ranges(3, 95); }),
            "automaton: set 0: expected no mask id, found id 90");
  EXPECT_EQ(refusal([](auto& r) { r.mutable_automaton()->mutable_sets(0)->set_ranges(0, 5); }),
            "automaton: set 0: expected no end token, found id 5");
  EXPECT_EQ(refusal([](auto& r) { r.mutable_sampler()->set_gen_length(1); }),
            "automaton: expected an accepted answer of at most gen_length 1 tokens, found that the "
            "shortest has 2");
  EXPECT_EQ(refusal([](auto& r) { r.add_stop(std::string("x")); }),
            "stop: expected none with an automaton, found some");
}

TEST(RequestCheckTest, GrowthIsTakenFieldByField) {
  v1::GenerateRequest request = Request();
  MASKKV_ASSERT_OK_AND_ASSIGN(CheckedRequest checked, CheckRequest(request, Limits()));
  EXPECT_EQ(checked.params.growth, engine::Growth{});
  EXPECT_EQ(checked.params.longest(), checked.params.gen_length);
  v1::Growth& growth = *request.mutable_sampler()->mutable_growth();
  growth.set_max_gen_length(64);
  MASKKV_ASSERT_OK_AND_ASSIGN(checked, CheckRequest(request, Limits()));
  EXPECT_EQ(checked.params.growth, engine::Growth{.max_gen_length = 64});
  EXPECT_EQ(checked.params.longest(), 64);
  growth.set_by(16);
  growth.set_window(4);
  growth.set_eos_threshold(0);
  growth.set_eos_threshold_decoding(0.25);
  growth.set_low_confidence(0);
  MASKKV_ASSERT_OK_AND_ASSIGN(checked, CheckRequest(request, Limits()));
  EXPECT_EQ(checked.params.growth, (engine::Growth{.max_gen_length = 64,
                                                   .by = 16,
                                                   .window = 4,
                                                   .eos_threshold = 0,
                                                   .eos_threshold_decoding = 0.25,
                                                   .low_confidence = 0}));
  growth.set_by(3);
  EXPECT_EQ(CheckRequest(request, Limits()).status().message(),
            "growth.by: expected a multiple of block_length 8 up to 16777216, or 0, found 3");
  growth.set_by(8);
  growth.set_max_gen_length(1 << 20);
  EXPECT_THAT(std::string(CheckRequest(request, Limits()).status().message()),
              ::testing::StartsWith("growth.max_gen_length: expected at most "));
}

struct BadCase {
  const char* name;
  const char* reason;
  std::function<void(v1::GenerateRequest&)> spoil;
};

class BadRequestTest : public ::testing::TestWithParam<BadCase> {};

TEST_P(BadRequestTest, IsRefusedWithItsReason) {
  v1::GenerateRequest request = Request();
  GetParam().spoil(request);
  const absl::Status status = CheckRequest(request, Limits()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_EQ(ErrorReason(status), GetParam().reason) << status;
}

using Request_ = v1::GenerateRequest&;
INSTANTIATE_TEST_SUITE_P(
    Fields, BadRequestTest,
    ::testing::Values(
        BadCase{"NoPrompt", "NO_PROMPT", [](Request_ r) { r.clear_prompt(); }},
        BadCase{"NegativeLength", "BAD_SAMPLER",
                [](Request_ r) { r.mutable_sampler()->set_gen_length(-1); }},
        BadCase{"LongAnswer", "BAD_SAMPLER",
                [](Request_ r) { r.mutable_sampler()->set_gen_length(257); }},
        BadCase{"BlocksThatDoNotFit", "BAD_SAMPLER",
                [](Request_ r) { r.mutable_sampler()->set_block_length(5); }},
        BadCase{"NegativeBlock", "BAD_SAMPLER",
                [](Request_ r) { r.mutable_sampler()->set_block_length(-8); }},
        BadCase{"StepsThatDoNotFit", "BAD_SAMPLER",
                [](Request_ r) { r.mutable_sampler()->set_steps(3); }},
        BadCase{"Cold", "BAD_SAMPLER",
                [](Request_ r) { r.mutable_sampler()->set_temperature(-0.5); }},
        BadCase{"Hot", "BAD_SAMPLER",
                [](Request_ r) { r.mutable_sampler()->set_temperature(1001); }},
        BadCase{"NotANumber", "BAD_SAMPLER",
                [](Request_ r) {
                  r.mutable_sampler()->set_temperature(std::numeric_limits<double>::quiet_NaN());
                }},
        BadCase{"UnknownRule", "BAD_SAMPLER",
                [](Request_ r) { r.mutable_sampler()->set_rule(std::string("greedy")); }},
        BadCase{"NoTokensLeft", "BAD_SAMPLER",
                [](Request_ r) { r.mutable_sampler()->set_top_p(0); }},
        BadCase{"NegativeTopK", "BAD_SAMPLER",
                [](Request_ r) { r.mutable_sampler()->set_top_k(-1); }},
        BadCase{"TimeThatDoesNotPass", "BAD_SAMPLER",
                [](Request_ r) { r.mutable_sampler()->set_eps(1); }},
        BadCase{"ColdPositions", "BAD_SAMPLER",
                [](Request_ r) { r.mutable_sampler()->set_alg_temp(-1); }},
        BadCase{"HighThreshold", "BAD_SAMPLER",
                [](Request_ r) { r.mutable_sampler()->set_threshold(1.01); }},
        BadCase{"NegativeLowThreshold", "BAD_SAMPLER",
                [](Request_ r) { r.mutable_sampler()->set_low_threshold(-0.1); }},
        BadCase{"NegativeFactor", "BAD_SAMPLER",
                [](Request_ r) { r.mutable_sampler()->set_factor(-1); }},
        BadCase{"UnknownSource", "BAD_SAMPLER",
                [](Request_ r) {
                  r.mutable_sampler()->set_confidence_source(static_cast<v1::ConfidenceSource>(9));
                }},
        BadCase{"StepsWithoutSchedule", "BAD_SAMPLER",
                [](Request_ r) {
                  r.mutable_sampler()->set_rule(std::string("factor"));
                  r.mutable_sampler()->set_steps(32);
                }},
        BadCase{"ManySamples", "BAD_SAMPLES", [](Request_ r) { r.set_samples(9); }},
        BadCase{"NegativeSamples", "BAD_SAMPLES", [](Request_ r) { r.set_samples(-1); }},
        BadCase{"EmptyStop", "BAD_STOP", [](Request_ r) { r.add_stop(); }},
        BadCase{"LongStop", "BAD_STOP", [](Request_ r) { r.add_stop(std::string(257, 'x')); }},
        BadCase{"ManyStops", "BAD_STOP",
                [](Request_ r) {
                  for (int i = 0; i < 17; ++i) r.add_stop(std::string(1, 'x'));
                }},
        BadCase{"StopWithASuffix", "BAD_STOP",
                [](Request_ r) {
                  r.mutable_prompt()->mutable_suffix()->set_text(std::string(1, 'x'));
                  r.add_stop(std::string(1, 'x'));
                }},
        BadCase{"Priority", "BAD_PRIORITY", [](Request_ r) { r.set_priority(101); }},
        BadCase{"UnknownCache", "BAD_CACHE",
                [](Request_ r) { r.set_cache(static_cast<v1::Cache>(9)); }},
        BadCase{"UnknownReuse", "BAD_REUSE",
                [](Request_ r) { r.set_reuse(static_cast<v1::Reuse>(9)); }},
        BadCase{"ReuseWithoutCache", "BAD_REUSE",
                [](Request_ r) {
                  r.set_reuse(v1::REUSE_KEPT);
                  r.set_cache(v1::CACHE_NONE);
                }},
        BadCase{"ReuseWithoutHandle", "BAD_HANDLE",
                [](Request_ r) { r.set_reuse(v1::REUSE_KEPT); }},
        BadCase{"EmptyHandle", "BAD_HANDLE",
                [](Request_ r) {
                  r.set_reuse(v1::REUSE_KEPT);
                  r.mutable_handle();
                }},
        BadCase{"VoteOverWithoutCache", "BAD_REUSE",
                [](Request_ r) {
                  r.set_reuse(v1::REUSE_VOTE_OVER);
                  r.set_cache(v1::CACHE_NONE);
                }},
        BadCase{"VoteOverWithoutHandle", "BAD_HANDLE",
                [](Request_ r) { r.set_reuse(v1::REUSE_VOTE_OVER); }},
        BadCase{"VoteOverWithRefresh", "BAD_SAMPLER",
                [](Request_ r) {
                  r.set_reuse(v1::REUSE_VOTE_OVER);
                  r.mutable_handle()->set_owner(std::string(1, 'c'));
                  r.mutable_handle()->set_entry_id(1);
                  r.mutable_handle()->set_version(1);
                  r.mutable_sampler()->set_refresh_every(2);
                }},
        BadCase{"KeptForADay", "BAD_KEEP_ENTRY",
                [](Request_ r) { r.set_keep_entry_ms(86'400'000); }}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(RequestCheckTest, StopStringsNeedATokenizer) {
  RequestLimits limits = Limits();
  limits.has_tokenizer = false;
  v1::GenerateRequest request = Request();
  request.add_stop(std::string(1, 'x'));
  const absl::Status status = CheckRequest(request, limits).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ErrorReason(status), "NO_TOKENIZER");
}

}  // namespace
}  // namespace maskkv::decode
