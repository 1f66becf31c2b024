// SPDX-License-Identifier: Apache-2.0
//
// Decodings under an automaton: step by step against the float64 NumPy oracle
// (tests/data/golden/constrained), random automata whose answers a simulation accepts, steps beyond
// a schedule, neighbours that notice nothing, and what is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <tuple>

#include "core/engine/constraint.h"
#include "core/engine/decode.h"
#include "tests/support/seed.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/core/decoding/automata.h"
#include "tests/unit/core/engine/golden_file.h"
#include "tests/unit/core/engine/test_model.h"

namespace maskkv::engine::constrained_test {
namespace {

using decoding::AutomatonParts;
using decoding::TokenAutomaton;
using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::StatusIs;
using Ids = std::vector<std::int32_t>;

const std::string kGolden = std::string(MASKKV_SOURCE_DIR) + "/tests/data/golden/";

std::shared_ptr<const TokenAutomaton> Made(AutomatonParts parts) {
  return ValueOrDie(TokenAutomaton::Make(std::move(parts)));
}

// One of the ids 0 .. ids - 1, `words` times, and no other.
AutomatonParts Twins(std::int32_t ids, std::int32_t words) {
  AutomatonParts parts{.states = 1 + ids * words};
  for (std::int32_t id = 0; id < ids; ++id) {
    parts.sets.push_back({{id, id}});
    for (std::int32_t i = 0; i < words; ++i) {
      const std::int32_t state = 1 + id * words + i;
      parts.arcs.push_back({i == 0 ? 0 : state - 1, id, state});
    }
    parts.accepting.push_back((id + 1) * words);
  }
  return parts;
}

DecodeRequest Request(const TestModel& model, const GenerateParams& params,
                      std::int32_t prompt_tokens = 12) {
  DecodeRequest request;
  for (std::int32_t i = 0; i < prompt_tokens; ++i) request.prompt.push_back((7 * i) % 40);
  request.prompt_tokens = prompt_tokens;
  request.params = params;
  request.params.stop_ids = {model.weights.config().eos_id};
  return request;
}

// (step, position, token, confidence bits), in order.
using Trace = std::vector<std::tuple<std::int64_t, std::int64_t, std::int32_t, std::uint32_t>>;

void Record(const StepEvent& event, Trace& trace) {
  EXPECT_THAT(event.status, IsOk());
  for (const auto* predictions : {&event.committed, &event.provisional}) {
    for (const Prediction& p : *predictions) {
      trace.emplace_back(event.step, p.position, p.token,
                         std::bit_cast<std::uint32_t>(p.confidence));
    }
  }
}

// --- against the oracle ---

std::vector<std::string> Names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(kGolden + "constrained")) {
    names.push_back(entry.path().stem());
  }
  std::sort(names.begin(), names.end());
  return names;
}

AutomatonParts PartsOf(const json& fields) {
  AutomatonParts parts{.states = fields.at("states"), .start = fields.at("start")};
  parts.accepting = fields.at("accepting").get<Ids>();
  for (const json& bounds : fields.at("sets")) {
    parts.sets.emplace_back();
    for (std::size_t i = 0; i < bounds.size(); i += 2) {
      parts.sets.back().push_back({bounds.at(i), bounds.at(i + 1)});
    }
  }
  const json& arcs = fields.at("arcs");
  for (std::size_t i = 0; i < arcs.size(); i += 3) {
    parts.arcs.push_back({arcs.at(i), arcs.at(i + 1), arcs.at(i + 2)});
  }
  return parts;
}

class GoldenConstrainedTest : public ::testing::TestWithParam<std::string> {};

TEST_P(GoldenConstrainedTest, StepsAreTheOracles) {
  const json golden = ReadGolden(CommittedGolden("constrained"), GetParam());
  TestModel model(GoldenModel(golden), kernels::DType::kF32, 2, 64);
  const AutomatonParts parts = PartsOf(golden.at("automaton"));
  DecodeRequest request;
  request.prompt = golden.at("prompt_ids").get<Ids>();
  request.prompt_tokens = std::ssize(request.prompt);
  request.params = GoldenParams(golden);
  request.params.automaton = Made(parts);
  const Ids ends = EndIds(request.params);
  Decoder decoder(model.transformer);
  MASKKV_ASSERT_OK_AND_ASSIGN(const RequestId id, decoder.Add(std::move(request)));
  for (const json& expected : golden.at("steps")) {
    ASSERT_EQ(decoder.running(), 1);
    const StepEvent event = decoder.Step().front();
    decoder.CheckInvariants();
    ASSERT_THAT(event.status, IsOk());
    EXPECT_EQ(event.step, expected.at("step").get<std::int64_t>());
    ASSERT_TRUE(expected.at("decided").get<bool>()) << "the cases were chosen so";
    const json& committed = expected.at("committed");
    ASSERT_EQ(event.committed.size(), committed.size()) << "step " << event.step;
    for (std::size_t i = 0; i < committed.size(); ++i) {
      EXPECT_EQ(event.committed[i].position, committed.at(i).at(0));
      EXPECT_EQ(event.committed[i].token, committed.at(i).at(1));
      EXPECT_NEAR(event.committed[i].confidence, committed.at(i).at(2).get<double>(),
                  expected.at("bounds").at("confidence").get<double>());
    }
  }
  EXPECT_EQ(decoder.running(), 0);
  const Canvas& canvas = *decoder.Find(id);
  EXPECT_EQ(Ids(canvas.tokens().begin(), canvas.tokens().end()), golden.at("canvas").get<Ids>());
  EXPECT_EQ(canvas.Answer(), golden.at("answer").get<Ids>());
  EXPECT_TRUE(Accepts(parts, ends, canvas.Answer()));
}

INSTANTIATE_TEST_SUITE_P(Cases, GoldenConstrainedTest, ::testing::ValuesIn(Names()),
                         [](const auto& case_info) {
                           std::string name = case_info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

// --- properties ---

class ConstrainedTest : public ::testing::Test {
 protected:
  static std::unique_ptr<TestModel> Load(int threads) {
    return std::make_unique<TestModel>(kGolden + "checkpoints/mha", kernels::DType::kF32, threads,
                                       200);
  }
  static GenerateParams RandomParams(std::mt19937_64& random, std::size_t round) {
    GenerateParams params;
    const auto blocks = static_cast<std::int64_t>(1 + random() % 3);
    params.block_length = static_cast<std::int64_t>(1 + random() % 5);
    params.gen_length = blocks * params.block_length;
    params.steps = blocks * static_cast<std::int64_t>(1 + random() % 3);
    params.temperature = round % 2 == 0 ? 0.0 : 1.5;
    params.seed = random();
    params.suppress_eos = round % 5 == 4;
    params.ignore_eos = round % 3 == 1;
    const std::span<const decoding::Rule> rules = decoding::AllRules();
    params.rule.rule = rules[round % rules.size()];
    params.rule.threshold = 0.2;
    params.rule.low_threshold = 0.1;
    params.rule.top_k = round % 4 == 3 ? 3 : 0;
    params.rule.alg_temp = round % 7 == 0 ? 0.5 : 0;
    return params;
  }
};

TEST_F(ConstrainedTest, EveryAnswerIsAcceptedOrRefusedAtOnce) {
  const auto model = Load(1);
  std::mt19937_64 random(maskkv::testing::Seed());
  int answered = 0, refused = 0;
  for (std::size_t round = 0; round < 160; ++round) {
    const AutomatonParts parts = decoding::RandomAutomaton(random, 40);
    GenerateParams params = RandomParams(random, round);
    params.automaton = Made(parts);
    DecodeRequest request = Request(*model, params, 4);
    request.provisional = round % 4 == 0;
    const Ids ends = EndIds(request.params);
    Decoder decoder(model->transformer);
    const auto id = decoder.Add(std::move(request));
    if (!id.ok()) {
      EXPECT_THAT(id,
                  StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("automaton: expected")));
      ++refused;
      continue;
    }
    ++answered;
    std::int64_t last_step = -1;
    while (decoder.running() > 0) {
      const StepEvent event = decoder.Step().front();
      decoder.CheckInvariants();
      ASSERT_THAT(event.status, IsOk());
      ASSERT_GT(event.step, last_step);
      last_step = event.step;
      ASSERT_TRUE(!event.committed.empty() || params.rule.rule == decoding::Rule::kOrigin);
    }
    const Canvas& canvas = *decoder.Find(*id);
    EXPECT_TRUE(Accepts(parts, ends, canvas.Answer())) << "round " << round;
    if (canvas.finish_reason() == FinishReason::kLength || params.ignore_eos) {
      EXPECT_TRUE(Accepts(parts, ends, canvas.tokens())) << "round " << round;
    }
  }
  EXPECT_GT(answered, 60);
  EXPECT_GT(refused, 20);
}

TEST_F(ConstrainedTest, WhatAScheduleLeavesBehindIsDecidedInFurtherSteps) {
  const auto model = Load(1);
  GenerateParams params;
  params.gen_length = 8;
  params.block_length = 4;
  params.steps = 2;  // one for each block of four masks
  params.temperature = 2;
  params.seed = 5;
  params.automaton = Made(Twins(30, 6));
  Decoder decoder(model->transformer);
  MASKKV_ASSERT_OK_AND_ASSIGN(const RequestId id, decoder.Add(Request(*model, params)));
  std::vector<std::int64_t> steps, first_of_block;
  while (decoder.running() > 0) {
    const StepEvent event = decoder.Step().front();
    steps.push_back(event.step);
    first_of_block.push_back(event.committed.front().position / 4);
  }
  const Canvas& canvas = *decoder.Find(id);
  EXPECT_EQ(canvas.Answer(), Ids(6, canvas.tokens()[0]));
  ASSERT_GT(steps.size(), 2U) << "with this seed the masks of a step disagree";
  for (std::size_t i = 0; i < steps.size(); ++i) {
    EXPECT_EQ(steps[i], static_cast<std::int64_t>(i));
    if (i > 0) {
      EXPECT_GE(first_of_block[i], first_of_block[i - 1]);
    }
  }
}

TEST_F(ConstrainedTest, AnAutomatonThatAllowsEverythingChangesNothing) {
  const auto model = Load(1);
  const model::ModelConfig& config = model->weights.config();
  ASSERT_EQ(config.eos_id + 1, config.mask_id);
  std::mt19937_64 random(maskkv::testing::Seed());
  for (std::size_t round = 0; round < 20; ++round) {
    GenerateParams params = RandomParams(random, round);
    params.suppress_eos = true;  // else what an end token forbids would differ
    std::vector<Trace> traces;
    for (const bool constrained : {false, true}) {
      if (constrained) {
        params.automaton = Made({.states = 1,
                                 .accepting = {0},
                                 .sets = {{{0, config.eos_id - 1}}},
                                 .arcs = {{0, 0, 0}}});
      }
      Decoder decoder(model->transformer);
      ASSERT_THAT(decoder.Add(Request(*model, params)), IsOk());
      Trace& trace = traces.emplace_back();
      while (decoder.running() > 0) Record(decoder.Step().front(), trace);
    }
    EXPECT_EQ(traces[0], traces[1]) << "round " << round;
  }
}

TEST_F(ConstrainedTest, ABatchGivesWhatEachGivesAloneWithAnyNumberOfThreads) {
  std::vector<std::vector<Trace>> runs;
  for (const auto& [threads, together] : {std::pair{1, false}, {1, true}, {3, true}}) {
    const auto model = Load(threads);
    std::mt19937_64 random(maskkv::testing::Seed());
    std::vector<DecodeRequest> requests;
    for (std::size_t round = 0; round < 10; ++round) {
      GenerateParams params = RandomParams(random, round);
      params.suppress_eos = false;
      if (round % 3 != 0) {  // the others are free
        params.gen_length = 2 * params.block_length;
        params.steps = 2;
        params.automaton = Made(Twins(20, 1 + static_cast<std::int32_t>(random() % 2)));
      }
      requests.push_back(Request(*model, params));
      requests.back().provisional = round % 2 == 0;
    }
    std::vector<Trace>& traces = runs.emplace_back(requests.size());
    if (together) {
      Decoder decoder(model->transformer);
      for (DecodeRequest& request : requests) {
        ASSERT_THAT(decoder.Add(std::move(request)), IsOk());
      }
      while (decoder.running() > 0) {
        for (const StepEvent& event : decoder.Step()) Record(event, traces[event.request - 1]);
      }
      continue;
    }
    for (std::size_t i = 0; i < requests.size(); ++i) {
      Decoder decoder(model->transformer);
      ASSERT_THAT(decoder.Add(std::move(requests[i])), IsOk());
      while (decoder.running() > 0) Record(decoder.Step().front(), traces[i]);
    }
  }
  EXPECT_EQ(runs[1], runs[0]);
  EXPECT_EQ(runs[2], runs[0]);
}

TEST_F(ConstrainedTest, RefusesWhatModelOrCanvasCannotFollow) {
  const auto model = Load(1);
  const model::ModelConfig& config = model->weights.config();
  const auto refusal = [&](AutomatonParts parts, const auto& change) {
    GenerateParams params;
    params.gen_length = params.steps = params.block_length = 4;
    change(params);
    params.automaton = Made(std::move(parts));
    Decoder decoder(model->transformer);
    const absl::Status status = decoder.Add(Request(*model, params)).status();
    EXPECT_EQ(decoder.running(), status.ok() ? 1 : 0);
    return status.ok() ? "OK" : std::string(status.message());
  };
  const auto nothing = [](GenerateParams&) {};
  AutomatonParts parts = Twins(2, 4);
  EXPECT_EQ(refusal(parts, nothing), "OK");
  parts.sets[1] = {{1, 1}, {config.mask_id + 1, config.mask_id + 1}};
  EXPECT_EQ(refusal(parts, nothing), "automaton: set 1: expected ids from 0 to 130, found 131");
  parts.sets[1] = {{config.mask_id, config.mask_id}};
  EXPECT_EQ(refusal(parts, nothing), "automaton: set 1: expected no mask id, found id 130");
  parts.sets[1] = {{100, config.eos_id}};
  EXPECT_EQ(refusal(parts, nothing), "automaton: set 1: expected no end token, found id 129");
  EXPECT_EQ(refusal(Twins(2, 5), nothing),
            "automaton: expected an accepted answer of at most gen_length 4 tokens, found that the "
            "shortest has 5");
  EXPECT_EQ(refusal({.states = 2, .accepting = {1}}, nothing),
            "automaton: expected one that accepts an answer, found none accepted");
  EXPECT_EQ(refusal(Twins(2, 3), nothing), "OK");
  EXPECT_EQ(refusal(Twins(2, 3), [](GenerateParams& params) { params.suppress_eos = true; }),
            "automaton: expected an accepted answer of exactly gen_length 4 tokens where no end "
            "token may follow it, found none");
  EXPECT_EQ(refusal({.states = 1, .accepting = {0}}, nothing), "OK");  // the empty answer
  // Given tokens: what the canvas starts with.
  GenerateParams four;
  four.gen_length = 4;
  four.automaton = Made(Twins(2, 4));
  const auto given = [&](std::int32_t first, std::int32_t last) {
    const Ids canvas{first, config.mask_id, config.mask_id, last};
    return CheckAutomaton(four, config.mask_id, config.vocab_rows, canvas);
  };
  EXPECT_THAT(given(1, 1), IsOk());
  EXPECT_THAT(given(config.mask_id, 0), IsOk());
  EXPECT_THAT(given(1, 0), StatusIs(absl::StatusCode::kInvalidArgument,
                                    HasSubstr("that holds the given tokens, found none")));
  AutomatonParts large{.states = 1 << 16, .accepting = {0}};
  EXPECT_EQ(refusal(large,
                    [](GenerateParams& params) {
                      params.gen_length = params.block_length = params.steps = 1 << 11;
                    }),
            "automaton: expected at most 32768 states and arcs with gen_length 2048, found 65536");
}

}  // namespace
}  // namespace maskkv::engine::constrained_test
