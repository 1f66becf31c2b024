// SPDX-License-Identifier: Apache-2.0
//
// Decodings that refresh their entry, step by step against the float64 NumPy oracle
// (tests/data/golden/refresh): when the prompt is prefilled again and over which response, what
// each prefill keeps, what each step commits, and the share of attention that falls on kept pairs.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/engine/decode.h"
#include "core/engine/heap_kv.h"
#include "core/engine/prefill.h"
#include "core/policy/named_policy.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/core/engine/golden_case.h"
#include "tests/unit/core/engine/test_model.h"

namespace maskkv::engine::golden_refresh_test {
namespace {

using nlohmann::json;
using Ids = std::vector<std::int32_t>;

const std::string kFolder = GoldenFolder() + "/refresh/";
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

class GoldenRefreshTest : public ::testing::TestWithParam<std::string> {
 protected:
  GoldenRefreshTest()
      : golden_(ReadFile(GetParam())),
        prompt_(golden_.at("prompt_ids").get<Ids>()),
        model_(std::string(MASKKV_SOURCE_DIR) + "/" + golden_.at("model").get<std::string>(),
               kernels::DType::kF32, kThreads, 64) {
    const json& p = golden_.at("params");
    params_.gen_length = p.at("gen_length");
    params_.block_length = p.at("block_length");
    params_.steps = p.at("steps");
    params_.temperature = p.at("temperature");
    params_.seed = p.at("seed");
    params_.ignore_eos = p.at("ignore_eos");
    params_.stop_ids = p.at("stop_ids").get<Ids>();
    params_.refresh_every = golden_.at("refresh_every");
    params_.refresh_floor = golden_.at("refresh_floor");
    suffix_ = p.value("suffix", suffix_);
    params_.whole_canvas = !suffix_.empty();
  }

  EvictionPlan Plan() const {
    EvictionPlan plan;
    const auto parts = policy::ParsePolicy(golden_.at("policy").get<std::string>());
    EXPECT_TRUE(parts.ok()) << parts.status();
    if (parts.ok()) plan.Follow(*parts);
    plan.budget = golden_.at("budget");
    if (!golden_.at("alpha").is_null()) {
      plan.alpha = golden_.at("alpha");
      plan.beta = golden_.at("beta");
    }
    if (policy::NeedsImportance(plan.layer_rule)) {
      plan.importance = golden_.at("profile").get<std::vector<double>>();
    }
    return plan;
  }

  // The entry of a prefill over this response, compared with the oracle's.
  std::shared_ptr<const HeapKvEntry> Prefill(const Ids& response, const json& expected) {
    const std::vector<Row> rows =
        PromptThenResponse(prompt_, response, model_.weights.config(), suffix_);
    PrefillRequest request;
    request.rows = rows;
    request.plan = Plan();
    auto entry = std::make_shared<HeapKvEntry>();
    const auto result = Prefiller(model_.transformer).Run(request, *entry);
    EXPECT_TRUE(result.ok()) << result.status();
    for (std::size_t layer = 0; layer < expected.at("kept").size(); ++layer) {
      for (std::size_t head = 0; head < expected.at("kept").at(layer).size(); ++head) {
        if (!expected.at("decided").at(layer).at(head).get<bool>()) continue;
        const auto kept =
            entry->Positions(static_cast<std::int64_t>(layer), static_cast<std::int64_t>(head));
        EXPECT_EQ(Ids(kept.begin(), kept.end()), expected.at("kept").at(layer).at(head).get<Ids>())
            << "layer " << layer << " head " << head;
      }
    }
    return entry;
  }

  const json golden_;
  const Ids prompt_;
  GenerateParams params_;
  Ids suffix_;
  TestModel model_;
};

void CompareStep(const StepEvent& event, const json& expected) {
  ASSERT_TRUE(event.status.ok()) << event.status;
  EXPECT_EQ(event.step, expected.at("step").get<std::int64_t>());
  ASSERT_TRUE(expected.at("decided").get<bool>()) << "the cases were chosen so";
  const json& committed = expected.at("committed");
  ASSERT_EQ(event.committed.size(), committed.size());
  for (std::size_t i = 0; i < committed.size(); ++i) {
    EXPECT_EQ(event.committed[i].position, committed.at(i).at(0));
    EXPECT_EQ(event.committed[i].token, committed.at(i).at(1));
    EXPECT_NEAR(event.committed[i].confidence, committed.at(i).at(2).get<double>(),
                expected.at("bounds").at("confidence").get<double>());
  }
}

TEST_P(GoldenRefreshTest, PrefillsStepsAndSharesAreTheOracles) {
  const json& entries = golden_.at("entries");
  Decoder decoder(model_.transformer);
  RequestId id = 0;
  std::int64_t undecided = 0;
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
      CompareStep(event, expected.at("steps").at(step));
      if (HasFatalFailure()) return;
      ASSERT_EQ(event.kept_mass.has_value(), params_.refresh_floor > 0);
      if (event.kept_mass) {
        EXPECT_NEAR(*event.kept_mass, expected.at("kept_mass").at(step).get<double>(),
                    expected.at("bounds").at("kept_mass").at(step).get<double>());
      }
      const bool last_of_entry = step + 1 == expected.at("steps").size();
      EXPECT_EQ(event.refresh_due, last_of_entry && i + 1 < entries.size()) << "step " << step;
    }
    for (const json& layer : expected.at("decided")) {
      undecided += std::ranges::count(layer, json(false));
    }
  }
  EXPECT_LE(undecided, 1);
  const std::span<const std::int32_t> canvas = decoder.Find(id)->tokens();
  EXPECT_EQ(Ids(canvas.begin(), canvas.end()), golden_.at("canvas").get<Ids>());
}

INSTANTIATE_TEST_SUITE_P(Cases, GoldenRefreshTest, ::testing::ValuesIn(Names()),
                         [](const auto& case_info) {
                           std::string name = case_info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace maskkv::engine::golden_refresh_test
