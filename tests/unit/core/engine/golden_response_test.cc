// SPDX-License-Identifier: Apache-2.0
//
// Decodings with a response feature cache, step by step against the float64 NumPy oracle
// (tests/data/golden/response): which rows each layer recomputes, what every candidate would be and
// how sure, and what each step commits. Rows whose similarity no f32 implementation can tell apart,
// and all that follows them, are left out.
#include <gtest/gtest.h>

#include <map>
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

namespace maskkv::engine::golden_response_test {
namespace {

using nlohmann::json;
using Ids = std::vector<std::int32_t>;
using Rows = std::vector<std::int64_t>;

const std::string kFolder = CommittedGolden("response");
constexpr int kThreads = 2;

class GoldenResponseTest : public ::testing::TestWithParam<std::string> {
 protected:
  GoldenResponseTest()
      : golden_(ReadGolden(kFolder, GetParam())),
        prompt_(golden_.at("prompt_ids").get<Ids>()),
        model_(GoldenModel(golden_), kernels::DType::kF32, kThreads, 64) {
    request_.prompt_tokens = std::ssize(prompt_);
    request_.provisional = true;
    GenerateParams& params = request_.params;
    params = GoldenParams(golden_);
    params.refresh_every = golden_.at("refresh_every");
    params.response_every = golden_.at("response_every");
    params.response_share = golden_.at("response_share");
  }

  // The next entry: a prefill over this response, compared with the oracle's.
  std::shared_ptr<const HeapKvEntry> Prefill(const Ids& response) {
    const std::vector<Row> rows = PromptThenResponse(prompt_, response, model_.weights.config());
    PrefillRequest request;
    request.rows = rows;
    request.plan = GoldenPlan(golden_);
    auto entry = std::make_shared<HeapKvEntry>();
    const auto result = Prefiller(model_.transformer).Run(request, *entry);
    EXPECT_TRUE(result.ok()) << result.status();
    ExpectKept(*entry, golden_.at("kept").at(entries_++));
    return entry;
  }

  DecodeRequest Request() {
    request_.prompt = prompt_;
    if (golden_.at("policy").is_null()) return request_;
    const auto masks = static_cast<std::size_t>(request_.params.gen_length);
    request_.prompt = RecomputedTail(model_.weights.config(), prompt_);
    request_.cache = Prefill(Ids(masks, model_.weights.config().mask_id));
    return request_;
  }

  const json golden_;
  const Ids prompt_;
  TestModel model_;
  DecodeRequest request_;
  std::size_t entries_ = 0;
};

// False where rounding may have chosen other rows, from which nothing can be compared any more.
bool CompareChosen(const ResponseCache& cache, const json& expected) {
  if (expected.at("chosen").is_null()) {
    EXPECT_TRUE(cache.whole());
    return true;
  }
  EXPECT_FALSE(cache.whole());
  for (std::size_t layer = 0; layer < expected.at("chosen").size(); ++layer) {
    if (!expected.at("chosen_decided").at(layer).get<bool>()) return false;
    EXPECT_EQ(cache.layer(static_cast<std::int64_t>(layer)).chosen,
              expected.at("chosen").at(layer).get<Rows>())
        << "layer " << layer;
  }
  return true;
}

void ComparePredictions(const StepEvent& event, const json& expected) {
  const double bound = expected.at("bounds").at("confidence");
  std::map<std::int64_t, Prediction> found;
  for (const auto* predictions : {&event.committed, &event.provisional}) {
    for (const Prediction& prediction : *predictions) found[prediction.position] = prediction;
  }
  for (std::size_t i = 0; i < expected.at("positions").size(); ++i) {
    const auto it = found.find(expected.at("positions").at(i).get<std::int64_t>());
    ASSERT_NE(it, found.end());
    if (!expected.at("decided").get<bool>()) continue;
    EXPECT_EQ(it->second.token, expected.at("tokens").at(i).get<std::int32_t>());
    EXPECT_NEAR(it->second.confidence, expected.at("confidence").at(i).get<double>(), bound);
  }
}

TEST_P(GoldenResponseTest, RowsPredictionsAndCommitsAreTheOracles) {
  Decoder decoder(model_.transformer);
  MASKKV_ASSERT_OK_AND_ASSIGN(const RequestId id, decoder.Add(Request()));
  const json& steps = golden_.at("steps");
  std::size_t compared = 0;
  for (const json& expected : steps) {
    SCOPED_TRACE("step " + std::to_string(compared));
    ASSERT_EQ(decoder.running(), 1);
    const StepEvent event = decoder.Step().front();
    ASSERT_TRUE(event.status.ok()) << event.status;
    EXPECT_EQ(event.step, expected.at("step").get<std::int64_t>());
    if (!CompareChosen(*decoder.FindResponseCache(id), expected)) break;
    ComparePredictions(event, expected);
    if (!expected.at("decided").get<bool>()) break;
    ExpectCommitted(event.committed, expected.at("committed"),
                    expected.at("bounds").at("confidence").get<double>());
    if (HasFatalFailure()) return;
    ++compared;
    if (!event.refresh_due) continue;
    const std::span<const std::int32_t> canvas = decoder.Find(id)->tokens();
    const Ids response(canvas.begin(), canvas.end());
    ASSERT_THAT(decoder.SwapCache(id, Prefill(response)), testing::IsOk());
  }
  EXPECT_GE(compared, golden_.at("decided_steps").get<std::size_t>());
  if (compared < steps.size()) return;
  const std::span<const std::int32_t> canvas = decoder.Find(id)->tokens();
  EXPECT_EQ(Ids(canvas.begin(), canvas.end()), golden_.at("canvas").get<Ids>());
}

INSTANTIATE_TEST_SUITE_P(Cases, GoldenResponseTest, ::testing::ValuesIn(GoldenNames(kFolder)),
                         GoldenTestName);

}  // namespace
}  // namespace maskkv::engine::golden_response_test
