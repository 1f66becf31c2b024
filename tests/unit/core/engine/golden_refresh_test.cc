// SPDX-License-Identifier: Apache-2.0
//
// Decodings that refresh their entry, step by step against the float64 NumPy oracle
// (tests/data/golden/refresh): when the prompt is prefilled again and over which response, what
// each prefill keeps, what each step commits, and the share of attention that falls on kept pairs.
#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/engine/decode.h"
#include "core/engine/heap_kv.h"
#include "core/engine/prefill.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/core/engine/golden_file.h"
#include "tests/unit/core/engine/test_model.h"

namespace maskkv::engine::golden_refresh_test {
namespace {

using nlohmann::json;
using Ids = std::vector<std::int32_t>;

const std::string kFolder = GoldenFolder() + "/refresh";
constexpr int kThreads = 2;

class GoldenRefreshTest : public ::testing::TestWithParam<std::string> {
 protected:
  GoldenRefreshTest()
      : golden_(ReadGolden(kFolder, GetParam())),
        prompt_(golden_.at("prompt_ids").get<Ids>()),
        params_(GoldenParams(golden_)),
        model_(GoldenModel(golden_), kernels::DType::kF32, kThreads, 64) {
    params_.refresh_every = golden_.at("refresh_every");
    params_.refresh_floor = golden_.at("refresh_floor");
    suffix_ = golden_.at("params").value("suffix", suffix_);
    params_.whole_canvas = !suffix_.empty();
  }

  // The entry of a prefill over this response, compared with the oracle's.
  std::shared_ptr<const HeapKvEntry> Prefill(const Ids& response, const json& expected) {
    const std::vector<Row> rows =
        PromptThenResponse(prompt_, response, model_.weights.config(), suffix_);
    PrefillRequest request;
    request.rows = rows;
    request.plan = GoldenPlan(golden_);
    auto entry = std::make_shared<HeapKvEntry>();
    const auto result = Prefiller(model_.transformer).Run(request, *entry);
    EXPECT_TRUE(result.ok()) << result.status();
    undecided_ += ExpectKept(*entry, expected.at("kept"), expected.at("decided"));
    return entry;
  }

  const json golden_;
  const Ids prompt_;
  GenerateParams params_;
  Ids suffix_;
  TestModel model_;
  std::int64_t undecided_ = 0;  // heads of all entries
};

TEST_P(GoldenRefreshTest, PrefillsStepsAndSharesAreTheOracles) {
  const json& entries = golden_.at("entries");
  Decoder decoder(model_.transformer);
  RequestId id = 0;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    SCOPED_TRACE("entry " + std::to_string(i));
    const json& expected = entries.at(i);
    const Ids response = expected.at("response").get<Ids>();
    if (i == 0) {
      DecodeRequest request;
      request.prompt = RecomputedTail(model_.weights.config(), prompt_);
      request.prompt_tokens = std::ssize(prompt_);
      request.params = params_;
      request.response = response;
      request.suffix_tokens = std::ssize(suffix_);
      request.cache = Prefill(response, expected);
      MASKKV_ASSERT_OK_AND_ASSIGN(id, decoder.Add(std::move(request)));
    } else {
      EXPECT_EQ(decoder.running(), 0) << "it waits for its entry";
      const std::span<const std::int32_t> canvas = decoder.Find(id)->tokens();
      ASSERT_EQ(Ids(canvas.begin(), canvas.end()), response);
      ASSERT_THAT(decoder.SwapCache(id, Prefill(response, expected)), testing::IsOk());
    }
    for (std::size_t step = 0; step < expected.at("steps").size(); ++step) {
      ASSERT_EQ(decoder.running(), 1);
      const StepEvent event = decoder.Step().front();
      decoder.CheckInvariants();
      ExpectStep(event, expected.at("steps").at(step));
      if (HasFatalFailure()) return;
      ASSERT_EQ(event.kept_mass.has_value(), params_.refresh_floor > 0);
      if (event.kept_mass) {
        EXPECT_NEAR(*event.kept_mass, expected.at("kept_mass").at(step).get<double>(),
                    expected.at("bounds").at("kept_mass").at(step).get<double>());
      }
      const bool last_of_entry = step + 1 == expected.at("steps").size();
      EXPECT_EQ(event.refresh_due, last_of_entry && i + 1 < entries.size()) << "step " << step;
    }
  }
  EXPECT_LE(undecided_, 1);
  const std::span<const std::int32_t> canvas = decoder.Find(id)->tokens();
  EXPECT_EQ(Ids(canvas.begin(), canvas.end()), golden_.at("canvas").get<Ids>());
}

INSTANTIATE_TEST_SUITE_P(Cases, GoldenRefreshTest, ::testing::ValuesIn(GoldenNames(kFolder)),
                         GoldenTestName);

}  // namespace
}  // namespace maskkv::engine::golden_refresh_test
