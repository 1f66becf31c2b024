// SPDX-License-Identifier: Apache-2.0
//
// Classifier-free guidance: decodings step by step against the float64 NumPy oracle
// (tests/data/golden/guidance), the masked prompt's kept pairs too; against two forwards of
// somebody else's; and what a decoder refuses.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/engine/canvas_logits.h"
#include "core/engine/decode.h"
#include "core/engine/heap_kv.h"
#include "core/engine/prefill.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/core/engine/golden_file.h"
#include "tests/unit/core/engine/test_model.h"

namespace maskkv::engine::guidance_test {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::StatusIs;
using Ids = std::vector<std::int32_t>;
using Entry = std::shared_ptr<const HeapKvEntry>;

const std::string kFolder = CommittedGolden("guidance");
constexpr int kThreads = 2;

Entry Prefill(TestModel& model, const Ids& prompt, std::int64_t masks, const EvictionPlan& plan) {
  const std::vector<Row> rows = PromptThenMasks(prompt, masks, model.weights.config());
  PrefillRequest request;
  request.rows = rows;
  request.plan = plan;
  auto entry = std::make_shared<HeapKvEntry>();
  const auto result = Prefiller(model.transformer).Run(request, *entry);
  EXPECT_TRUE(result.ok()) << result.status();
  return entry;
}

Ids Masked(const TestModel& model, const Ids& prompt) {
  return Ids(prompt.size(), model.weights.config().mask_id);
}

class GoldenGuidanceTest : public ::testing::TestWithParam<std::string> {
 protected:
  GoldenGuidanceTest()
      : golden_(ReadGolden(kFolder, GetParam())),
        prompt_(golden_.at("prompt_ids").get<Ids>()),
        params_(GoldenParams(golden_)),
        model_(GoldenModel(golden_), kernels::DType::kF32, kThreads, 64) {
    params_.cfg_scale = golden_.at("params").at("cfg_scale");
  }

  // The entry of a prompt, compared with what the oracle keeps of it (null: everything).
  Entry PrefillOf(const Ids& prompt, const json& kept) {
    const EvictionPlan plan = GoldenPlan(golden_, kept.is_null() ? "full" : "maskkv",
                                         golden_.at("budget").get<std::int64_t>());
    Entry entry = Prefill(model_, prompt, params_.gen_length, plan);
    if (!kept.is_null()) ExpectKept(*entry, kept);
    return entry;
  }

  const json golden_;
  const Ids prompt_;
  GenerateParams params_;
  TestModel model_;
};

TEST_P(GoldenGuidanceTest, KeptPairsAndStepsAreTheOracles) {
  DecodeRequest request;
  request.prompt = prompt_;
  request.prompt_tokens = std::ssize(prompt_);
  request.params = params_;
  request.provisional = true;
  if (golden_.at("cache") != "none") {
    request.prompt = RecomputedTail(model_.weights.config(), prompt_);
    request.cache = PrefillOf(prompt_, golden_.at("kept"));
    request.unconditional = PrefillOf(Masked(model_, prompt_), golden_.at("unconditional_kept"));
  }
  const std::int64_t rows = 2 * (std::ssize(request.prompt) + params_.gen_length);
  Decoder decoder(model_.transformer);
  MASKKV_ASSERT_OK_AND_ASSIGN(const RequestId id, decoder.Add(std::move(request)));
  for (const json& expected : golden_.at("steps")) {
    ASSERT_EQ(decoder.running(), 1);
    const StepEvent event = decoder.Step().front();
    decoder.CheckInvariants();
    EXPECT_EQ(event.rows, rows);
    ASSERT_NO_FATAL_FAILURE(ExpectStep(event, expected));
    const double bound = expected.at("bounds").at("confidence");
    // The masks of the block that stay.
    const auto positions = expected.at("positions").get<std::vector<std::int64_t>>();
    for (const Prediction& prediction : event.provisional) {
      const auto at = std::ranges::find(positions, prediction.position) - positions.begin();
      if (at == std::ssize(positions)) continue;
      const auto i = static_cast<std::size_t>(at);
      EXPECT_EQ(prediction.token, expected.at("tokens").at(i));
      EXPECT_NEAR(prediction.confidence, expected.at("confidence").at(i).get<double>(), bound);
    }
  }
  EXPECT_EQ(decoder.running(), 0);
  const std::span<const std::int32_t> canvas = decoder.Find(id)->tokens();
  EXPECT_EQ(Ids(canvas.begin(), canvas.end()), golden_.at("canvas").get<Ids>());
}

INSTANTIATE_TEST_SUITE_P(Cases, GoldenGuidanceTest, ::testing::ValuesIn(GoldenNames(kFolder)),
                         GoldenTestName);

class GuidanceTest : public ::testing::Test {
 protected:
  GuidanceTest() {
    for (std::int32_t i = 0; i < 30; ++i) prompt_.push_back((7 * i + 3) % 90);
    EvictionPlan plan;
    plan.layer_rule = LayerRule::kUniform;
    plan.budget = 5;
    cache_ = Prefill(model_, prompt_, 8, plan);
    masked_ = Prefill(model_, Masked(model_, prompt_), 8, plan);
  }

  DecodeRequest Request(double cfg_scale) const {
    DecodeRequest request;
    request.prompt_tokens = std::ssize(prompt_);
    request.params.gen_length = request.params.block_length = request.params.steps = 8;
    request.params.ignore_eos = true;
    request.params.cfg_scale = cfg_scale;
    request.cache = cache_;
    if (cfg_scale > 0) request.unconditional = masked_;
    return request;
  }

  absl::Status Refusal(DecodeRequest request) {
    return Decoder(model_.transformer).Add(std::move(request)).status();
  }

  TestModel model_{CommittedGolden("checkpoints/mha"), kernels::DType::kF32, kThreads, 64};
  Ids prompt_;
  Entry cache_, masked_;
};

TEST_F(GuidanceTest, TheFirstStepTakesTheBestOfTwoForwardsCombined) {
  constexpr double kScale = 1.75;
  const Ids canvas(8, model_.weights.config().mask_id);
  std::vector<std::int64_t> wanted{0, 1, 2, 3, 4, 5, 6, 7};
  const auto logits_over = [&](const Entry& entry) {
    CanvasLogits logits(model_.transformer);
    const auto rows = logits.Run({.entry = entry.get(),
                                  .prompt = {},
                                  .prompt_tokens = std::ssize(prompt_),
                                  .canvas = canvas,
                                  .wanted = wanted});
    return std::vector<float>(rows.begin(), rows.end());
  };
  const std::vector<float> with = logits_over(cache_), without = logits_over(masked_);
  DecodeRequest request = Request(kScale);
  request.params.steps = 1;
  Decoder decoder(model_.transformer);
  ASSERT_THAT(decoder.Add(std::move(request)), IsOk());
  const StepEvent event = decoder.Step().front();
  ASSERT_EQ(event.committed.size(), wanted.size());
  const std::size_t vocabulary = with.size() / wanted.size();
  std::size_t moved = 0;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    std::size_t best = 0, plain = 0;
    const auto guided = [&](std::size_t id) {
      const std::size_t at = i * vocabulary + id;
      return (1 + kScale) * static_cast<double>(with[at]) -
             kScale * static_cast<double>(without[at]);
    };
    for (std::size_t id = 1; id < vocabulary; ++id) {
      if (static_cast<std::int32_t>(id) == model_.weights.config().mask_id) continue;
      if (guided(id) > guided(best)) best = id;
      if (with[i * vocabulary + id] > with[i * vocabulary + plain]) plain = id;
    }
    EXPECT_EQ(event.committed[i].token, static_cast<std::int32_t>(best)) << "position " << i;
    moved += best != plain ? 1 : 0;
  }
  EXPECT_GT(moved, 0U) << "guidance that changes nothing shows nothing";
}

TEST_F(GuidanceTest, ADecoderRefusesWhatDoesNotGoTogether) {
  EXPECT_THAT(Refusal(Request(1)), IsOk());
  DecodeRequest request = Request(1);
  request.unconditional = nullptr;
  EXPECT_THAT(Refusal(request), StatusIs(absl::StatusCode::kInvalidArgument,
                                         HasSubstr("unconditional: expected the masked prompt's "
                                                   "entry")));
  request = Request(0);
  request.unconditional = masked_;
  EXPECT_THAT(Refusal(request), StatusIs(absl::StatusCode::kInvalidArgument,
                                         HasSubstr("unconditional: expected none")));
  request = Request(1);
  request.prompt = {prompt_.back()};  // recomputed, but the entries have pairs there
  EXPECT_THAT(Refusal(request),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("which is recomputed")));
  request = Request(1);
  request.params.refresh_every = 2;
  EXPECT_THAT(Refusal(request), StatusIs(absl::StatusCode::kInvalidArgument,
                                         HasSubstr("cfg_scale: expected 0 with refresh_every")));
  for (const double scale : {-0.5, 1000.5, std::numeric_limits<double>::quiet_NaN()}) {
    request = Request(0);
    request.params.cfg_scale = scale;
    EXPECT_THAT(Refusal(request), StatusIs(absl::StatusCode::kInvalidArgument,
                                           HasSubstr("cfg_scale: expected 0 to 1000")));
  }
}

}  // namespace
}  // namespace maskkv::engine::guidance_test
