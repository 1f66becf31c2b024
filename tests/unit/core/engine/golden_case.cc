// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/core/engine/golden_case.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace maskkv::engine {
namespace {

const std::string kCases = GoldenFolder() + "/cases/";

nlohmann::json ReadJson(const std::string& path) {
  std::ifstream file(path);
  return nlohmann::json::parse(file);
}

}  // namespace

std::string GoldenFolder() {
  const char* const other = std::getenv("MASKKV_GOLDEN");
  return other != nullptr ? other : std::string(MASKKV_SOURCE_DIR) + "/tests/data/golden";
}

GoldenCase::GoldenCase(const std::string& case_name)
    : name(case_name),
      json(ReadJson(kCases + name + "/case.json")),
      tensors(ValueOrDie(model::SafetensorsFile::Open(kCases + name + "/tensors.safetensors"))),
      prompt(json.at("prompt_ids").get<std::vector<std::int32_t>>()),
      cache(json.at("cache").get<std::string>()) {
  const nlohmann::json& p = json.at("params");
  params.gen_length = p.at("gen_length");
  params.block_length = p.at("block_length");
  params.steps = p.at("steps");
  params.temperature = p.at("temperature");
  params.seed = p.at("seed");
  params.suppress_eos = p.at("suppress_eos");
  params.ignore_eos = p.at("ignore_eos");
  params.stop_ids = p.at("stop_ids").get<std::vector<std::int32_t>>();
  canvas = p.value("canvas", canvas);
  suffix = p.value("suffix", suffix);
  params.whole_canvas = !canvas.empty() || !suffix.empty();
  if (p.contains("rule")) {
    const nlohmann::json& rule = p.at("rule");
    params.rule.rule = ValueOrDie(decoding::ParseRule(rule.at("name").get<std::string>()));
    params.rule.eps = rule.at("eps");
    params.rule.alg_temp = rule.at("alg_temp");
    params.rule.threshold = rule.at("threshold");
    params.rule.low_threshold = rule.at("low_threshold");
    params.rule.factor = rule.at("factor");
    params.rule.span_threshold = rule.value("span_threshold", params.rule.span_threshold);
    params.rule.explore_steps = rule.value("explore_steps", params.rule.explore_steps);
    params.rule.stable_steps = rule.value("stable_steps", params.rule.stable_steps);
  }
  if (json.contains("reuse")) {
    reuse = {json.at("reuse").at("document_tokens"),
             json.at("reuse").at("question_ids").get<std::vector<std::int32_t>>()};
  }
  plan.selection = cache == "maskkv" ? Selection::kMaskKv : Selection::kFull;
  if (cache != "maskkv") return;
  const nlohmann::json& eviction = json.at("eviction");
  plan.budget = eviction.at("budget");
  plan.alpha = eviction.at("alpha");
  plan.beta = eviction.at("beta");
  if (eviction.at("mode") == "online") {
    plan.layer_rule = LayerRule::kOnline;
  } else {
    plan.importance = eviction.at("profile").get<std::vector<double>>();
  }
}

std::vector<std::string> GoldenCase::Names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(kCases)) {
    names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string GoldenCase::model_directory() const {
  return std::string(MASKKV_SOURCE_DIR) + "/" + json.at("model").get<std::string>();
}

std::span<const float> GoldenCase::Tensor(const std::string& tensor) const {
  const model::TensorView* view = tensors.Find(tensor);
  if (view == nullptr || view->type != model::TensorType::kF32) {
    std::fprintf(stderr, "%s: no f32 tensor %s\n", name.c_str(), tensor.c_str());
    std::abort();
  }
  return {reinterpret_cast<const float*>(view->data.data()), view->data.size() / sizeof(float)};
}

}  // namespace maskkv::engine
