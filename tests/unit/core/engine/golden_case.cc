// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/core/engine/golden_case.h"

#include <cstdio>
#include <cstdlib>

#include "tests/unit/core/engine/golden_file.h"

namespace maskkv::engine {
namespace {

const std::string kCases = GoldenFolder() + "/cases/";

}  // namespace

GoldenCase::GoldenCase(const std::string& case_name)
    : name(case_name),
      json(ReadGolden(kCases + name, "case")),
      tensors(ValueOrDie(model::SafetensorsFile::Open(kCases + name + "/tensors.safetensors"))),
      prompt(json.at("prompt_ids").get<std::vector<std::int32_t>>()),
      params(GoldenParams(json)),
      cache(json.at("cache").get<std::string>()) {
  const nlohmann::json& p = json.at("params");
  canvas = p.value("canvas", canvas);
  suffix = p.value("suffix", suffix);
  params.whole_canvas = !canvas.empty() || !suffix.empty();
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

std::vector<std::string> GoldenCase::Names() { return GoldenNames(kCases); }

std::string GoldenCase::model_directory() const { return GoldenModel(json); }

std::span<const float> GoldenCase::Tensor(const std::string& tensor) const {
  const model::TensorView* view = tensors.Find(tensor);
  if (view == nullptr || view->type != model::TensorType::kF32) {
    std::fprintf(stderr, "%s: no f32 tensor %s\n", name.c_str(), tensor.c_str());
    std::abort();
  }
  return {reinterpret_cast<const float*>(view->data.data()), view->data.size() / sizeof(float)};
}

}  // namespace maskkv::engine
