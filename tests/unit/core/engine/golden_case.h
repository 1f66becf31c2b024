// SPDX-License-Identifier: Apache-2.0
//
// One case of tests/data/golden, written by the NumPy oracle (python/maskkv_oracle), whose README
// says what each key means: a checkpoint, a prompt, parameters, what the float64 oracle computed
// and the derived bounds and margins to compare with.
#ifndef MASKKV_TESTS_UNIT_CORE_ENGINE_GOLDEN_CASE_H_
#define MASKKV_TESTS_UNIT_CORE_ENGINE_GOLDEN_CASE_H_

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/engine/eviction_plan.h"
#include "core/engine/generate_params.h"
#include "core/model/safetensors.h"
#include "tests/unit/core/engine/test_model.h"

namespace maskkv::engine {

struct GoldenCase {
  explicit GoldenCase(const std::string& name);

  // Names of all cases, sorted.
  static std::vector<std::string> Names();

  std::string name;
  nlohmann::json json;
  model::SafetensorsFile tensors;
  std::vector<std::int32_t> prompt;
  GenerateParams params;
  std::vector<std::int32_t> canvas;  // what the answer starts with; empty: masks
  std::vector<std::int32_t> suffix;  // of the prompt, after the canvas
  std::string cache;                 // none | full | maskkv
  EvictionPlan plan;                 // keeps everything unless cache is maskkv
  // Another question over the prompt's first tokens, served by what was kept of them; or absent.
  struct Reuse {
    std::int64_t document_tokens = 0;
    std::vector<std::int32_t> question;
  };
  std::optional<Reuse> reuse;

  std::string model_directory() const;
  std::int64_t positions() const {
    const auto prefilled = static_cast<std::int64_t>(prompt.size());
    return std::max(prefilled, answered_tokens()) + params.gen_length + std::ssize(suffix);
  }
  // Tokens of the prompt that the steps answer.
  std::int64_t answered_tokens() const {
    if (!reuse) return static_cast<std::int64_t>(prompt.size());
    return reuse->document_tokens + static_cast<std::int64_t>(reuse->question.size());
  }
  bool Has(const std::string& tensor) const { return tensors.Find(tensor) != nullptr; }
  // An f32 tensor's values.
  std::span<const float> Tensor(const std::string& tensor) const;
  double Bound(const std::string& key) const { return json.at("bounds").at(key).get<double>(); }
};

}  // namespace maskkv::engine

#endif  // MASKKV_TESTS_UNIT_CORE_ENGINE_GOLDEN_CASE_H_
