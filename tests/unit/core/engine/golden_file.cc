// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/core/engine/golden_file.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/policy/named_policy.h"
#include "tests/unit/core/engine/test_model.h"

namespace maskkv::engine {

using nlohmann::json;

std::string GoldenFolder() {
  const char* const other = std::getenv("MASKKV_GOLDEN");
  return other != nullptr ? other : std::string(MASKKV_SOURCE_DIR) + "/tests/data/golden";
}

std::string CommittedGolden(const std::string& kind) {
  return std::string(MASKKV_SOURCE_DIR) + "/tests/data/golden/" + kind;
}

std::vector<std::string> GoldenNames(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::filesystem::path& path = entry.path();
    names.push_back(entry.is_directory() ? path.filename() : path.stem());
  }
  std::ranges::sort(names);
  return names;
}

json ReadGolden(const std::string& folder, const std::string& name) {
  std::ifstream file(folder + "/" + name + ".json");
  return json::parse(file);
}

std::string GoldenTestName(const ::testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  std::ranges::replace_if(
      name, [](char c) { return c == '-' || c == '.'; }, '_');
  return name;
}

std::string GoldenModel(const json& golden) {
  return std::string(MASKKV_SOURCE_DIR) + "/" + golden.at("model").get<std::string>();
}

GenerateParams GoldenParams(const json& golden) {
  const json& p = golden.at("params");
  GenerateParams params;
  params.gen_length = p.at("gen_length");
  params.block_length = p.at("block_length");
  params.steps = p.at("steps");
  params.temperature = p.at("temperature");
  params.seed = p.at("seed");
  params.suppress_eos = p.at("suppress_eos");
  params.ignore_eos = p.at("ignore_eos");
  params.stop_ids = p.at("stop_ids").get<std::vector<std::int32_t>>();
  if (!p.contains("rule")) return params;
  const json& rule = p.at("rule");
  params.rule.rule = ValueOrDie(decoding::ParseRule(rule.at("name").get<std::string>()));
  params.rule.eps = rule.at("eps");
  params.rule.alg_temp = rule.at("alg_temp");
  params.rule.threshold = rule.at("threshold");
  params.rule.low_threshold = rule.at("low_threshold");
  params.rule.factor = rule.at("factor");
  params.rule.top_p = rule.value("top_p", params.rule.top_p);
  params.rule.top_k = rule.value("top_k", params.rule.top_k);
  params.rule.span_threshold = rule.value("span_threshold", params.rule.span_threshold);
  params.rule.explore_steps = rule.value("explore_steps", params.rule.explore_steps);
  params.rule.stable_steps = rule.value("stable_steps", params.rule.stable_steps);
  return params;
}

EvictionPlan GoldenPlan(const json& golden, const std::string& policy, std::int64_t budget) {
  EvictionPlan plan;
  plan.Follow(ValueOrDie(policy::ParsePolicy(policy)));
  plan.budget = budget;
  if (golden.contains("alpha") && !golden.at("alpha").is_null()) {
    plan.alpha = golden.at("alpha");
    plan.beta = golden.at("beta");
  }
  if (policy::NeedsImportance(plan.layer_rule)) {
    plan.importance = golden.at("profile").get<std::vector<double>>();
  }
  return plan;
}

EvictionPlan GoldenPlan(const json& golden) {
  return GoldenPlan(golden, golden.at("policy").get<std::string>(),
                    golden.at("budget").get<std::int64_t>());
}

std::vector<std::int32_t> KeptPositions(const KvView& entry, std::size_t layer, std::size_t head) {
  const std::span<const std::int32_t> kept =
      entry.Positions(static_cast<std::int64_t>(layer), static_cast<std::int64_t>(head));
  return {kept.begin(), kept.end()};
}

void ExpectKept(const KvView& entry, const json& kept) {
  ASSERT_EQ(std::ssize(kept), entry.shape().layers);
  for (std::size_t layer = 0; layer < kept.size(); ++layer) {
    ASSERT_EQ(std::ssize(kept.at(layer)), entry.shape().kv_heads);
    for (std::size_t head = 0; head < kept.at(layer).size(); ++head) {
      EXPECT_EQ(KeptPositions(entry, layer, head),
                kept.at(layer).at(head).get<std::vector<std::int32_t>>())
          << "layer " << layer << " head " << head;
    }
  }
}

std::int64_t ExpectKept(const KvView& entry, const json& kept, const json& decided) {
  json expected = kept;
  std::int64_t undecided = 0;
  for (std::size_t layer = 0; layer < kept.size(); ++layer) {
    for (std::size_t head = 0; head < kept.at(layer).size(); ++head) {
      if (decided.at(layer).at(head).get<bool>()) continue;
      expected.at(layer).at(head) = KeptPositions(entry, layer, head);
      ++undecided;
    }
  }
  ExpectKept(entry, expected);
  return undecided;
}

void ExpectCommitted(std::span<const decoding::Prediction> found, const json& committed,
                     double bound) {
  ASSERT_EQ(found.size(), committed.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i].position, committed.at(i).at(0));
    EXPECT_EQ(found[i].token, committed.at(i).at(1));
    EXPECT_NEAR(found[i].confidence, committed.at(i).at(2).get<double>(), bound);
  }
}

void ExpectStep(const StepEvent& event, const json& expected) {
  ASSERT_TRUE(event.status.ok()) << event.status;
  ASSERT_EQ(event.step, expected.at("step").get<std::int64_t>());
  ASSERT_TRUE(expected.at("decided").get<bool>()) << "the cases were chosen so";
  ExpectCommitted(event.committed, expected.at("committed"),
                  expected.at("bounds").at("confidence").get<double>());
}

}  // namespace maskkv::engine
