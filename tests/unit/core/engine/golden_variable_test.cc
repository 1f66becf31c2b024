// SPDX-License-Identifier: Apache-2.0
//
// Decodings whose masks are mixed (remix) and whose canvas grows, pass by pass against the float64
// NumPy oracle (tests/data/golden/variable): what each pass commits and how long the canvas is
// after it. Every decision of these cases lies further from another than any f32 implementation
// errs.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/decoding/rule_spec.h"
#include "core/engine/decode.h"
#include "core/engine/heap_kv.h"
#include "core/engine/prefill.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/core/engine/golden_file.h"
#include "tests/unit/core/engine/test_model.h"

namespace maskkv::engine::golden_variable_test {
namespace {

using nlohmann::json;
using Ids = std::vector<std::int32_t>;

const std::string kFolder = GoldenFolder() + "/variable";
constexpr int kThreads = 2;

GenerateParams ParamsOf(const json& golden) {
  GenerateParams params = GoldenParams(golden);
  params.rule = ValueOrDie(decoding::ParseRuleSpec(golden.at("rule").get<std::string>()));
  if (const json& growth = golden.at("growth"); !growth.is_null()) {
    params.growth = {.max_gen_length = growth.at("max_gen_length"),
                     .by = growth.at("by"),
                     .window = growth.at("window"),
                     .eos_threshold = growth.at("eos_threshold"),
                     .eos_threshold_decoding = growth.at("eos_threshold_decoding"),
                     .low_confidence = growth.at("low_confidence")};
  }
  return params;
}

class GoldenVariableTest : public ::testing::TestWithParam<std::string> {
 protected:
  GoldenVariableTest()
      : golden_(ReadGolden(kFolder, GetParam())),
        prompt_(golden_.at("prompt_ids").get<Ids>()),
        params_(ParamsOf(golden_)),
        model_(GoldenModel(golden_), kernels::DType::kF32, kThreads, 96) {}

  // Over the entry of the masks that the canvas begins with, or none.
  DecodeRequest Request() {
    DecodeRequest request;
    request.prompt = prompt_;
    request.prompt_tokens = std::ssize(prompt_);
    request.params = params_;
    const auto cache = golden_.at("cache").get<std::string>();
    if (cache == "none") return request;
    const model::ModelConfig& config = model_.weights.config();
    const std::vector<Row> rows = PromptThenMasks(prompt_, params_.gen_length, config);
    PrefillRequest prefill;
    prefill.rows = rows;
    prefill.plan = GoldenPlan(golden_, cache, golden_.at("budget").get<std::int64_t>());
    auto entry = std::make_shared<HeapKvEntry>();
    EXPECT_THAT(Prefiller(model_.transformer).Run(prefill, *entry).status(), testing::IsOk());
    request.prompt = RecomputedTail(config, prompt_);
    request.cache = std::move(entry);
    return request;
  }

  const json golden_;
  const Ids prompt_;
  const GenerateParams params_;
  TestModel model_;
};

TEST_P(GoldenVariableTest, PassesCommitAndGrowAsTheOracleDoes) {
  Decoder decoder(model_.transformer);
  MASKKV_ASSERT_OK_AND_ASSIGN(const RequestId id, decoder.Add(Request()));
  const Canvas& canvas = *decoder.Find(id);
  for (const json& expected : golden_.at("passes")) {
    ASSERT_EQ(decoder.running(), 1);
    ASSERT_EQ(canvas.length(), expected.at("canvas").get<std::int64_t>());
    const StepEvent event = decoder.Step().front();
    decoder.CheckInvariants();
    ASSERT_THAT(event.status, testing::IsOk());
    ASSERT_EQ(event.step, expected.at("step").get<std::int64_t>());
    // A pass that commits nothing has no bound.
    ASSERT_NO_FATAL_FAILURE(
        ExpectCommitted(event.committed, expected.at("committed"), expected.value("bound", 0.0)));
    EXPECT_EQ(event.grown, expected.at("grown").get<std::int64_t>());
  }
  EXPECT_EQ(decoder.running(), 0);
  EXPECT_EQ(Ids(canvas.tokens().begin(), canvas.tokens().end()), golden_.at("canvas").get<Ids>());
  EXPECT_EQ(Name(canvas.finish_reason()), golden_.at("finish_reason").get<std::string>());
}

// What is provisional changes nothing, though the watched rows are among it.
TEST_P(GoldenVariableTest, ProvisionalOutputChangesNothing) {
  Decoder decoder(model_.transformer);
  MASKKV_ASSERT_OK_AND_ASSIGN(const RequestId plain, decoder.Add(Request()));
  DecodeRequest request = Request();
  request.provisional = true;
  MASKKV_ASSERT_OK_AND_ASSIGN(const RequestId provisional, decoder.Add(std::move(request)));
  while (decoder.running() > 0) {
    const std::vector<StepEvent> events = decoder.Step();
    ASSERT_EQ(events.size(), 2U);
    ASSERT_EQ(events[0].grown, events[1].grown);
    ASSERT_EQ(events[0].committed.size(), events[1].committed.size());
    for (std::size_t i = 0; i < events[0].committed.size(); ++i) {
      EXPECT_EQ(events[0].committed[i].confidence, events[1].committed[i].confidence);
    }
    const Canvas& canvas = *decoder.Find(provisional);
    std::vector<std::int64_t> masks, told;
    for (std::int64_t i = 0; i < canvas.length() - events[1].grown; ++i) {
      if (canvas.masked(i)) masks.push_back(i);
    }
    for (const Prediction& prediction : events[1].provisional) told.push_back(prediction.position);
    EXPECT_EQ(told, masks);
  }
  EXPECT_TRUE(
      std::ranges::equal(decoder.Find(plain)->tokens(), decoder.Find(provisional)->tokens()));
}

INSTANTIATE_TEST_SUITE_P(Cases, GoldenVariableTest, ::testing::ValuesIn(GoldenNames(kFolder)),
                         GoldenTestName);

}  // namespace
}  // namespace maskkv::engine::golden_variable_test
