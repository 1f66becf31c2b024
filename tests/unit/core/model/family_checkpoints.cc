// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/core/model/family_checkpoints.h"

#include <cmath>

#include "core/base/check.h"
#include "core/model/config.h"
#include "core/model/tensor_names.h"
#include "tests/support/seed.h"

namespace maskkv::model {
namespace {

nlohmann::json HuggingFaceConfig() {
  return {{"hidden_act", "silu"},
          {"hidden_size", 32},
          {"num_hidden_layers", 3},
          {"num_attention_heads", 8},
          {"num_key_value_heads", 2},
          {"vocab_size", 90},
          {"max_position_embeddings", 512},
          {"rope_theta", 1e6},
          {"rope_scaling", nullptr},
          {"rms_norm_eps", 1e-6},
          {"tie_word_embeddings", false},
          {"mask_token_id", 89},
          {"eos_token_id", 88},
          {"pad_token_id", 88}};
}

}  // namespace

std::vector<std::string> FamilyNames() { return {"llada", "dream", "moe", "moe_renormalised"}; }

nlohmann::json FamilyConfig(const std::string& name) {
  if (name == "llada") {
    nlohmann::json config = SmallConfig();
    config.update({{"d_model", 32},
                   {"n_layers", 3},
                   {"n_heads", 8},
                   {"n_kv_heads", 2},
                   {"mlp_hidden_size", 40},
                   {"vocab_size", 90},
                   {"embedding_size", 90},
                   {"mask_token_id", 89},
                   {"eos_token_id", 88},
                   {"pad_token_id", 88},
                   {"weight_tying", true}});
    return config;
  }
  nlohmann::json config = HuggingFaceConfig();
  if (name == "dream") {
    config.update(
        {{"model_type", "Dream"}, {"intermediate_size", 40}, {"use_sliding_window", false}});
    return config;
  }
  config.update({{"model_type", "llada"},
                 {"expert_intermediate_size", 12},
                 {"num_experts", 7},
                 {"num_experts_per_tok", 3},
                 {"norm_topk_prob", name == "moe_renormalised"},
                 {"qk_layernorm", true}});
  return config;
}

void WriteRandomCheckpoint(const TemporaryFolder& folder, const nlohmann::json& config,
                           std::uint64_t stream) {
  const auto parsed = ParseModelConfig(config.dump(), "config.json");
  MASKKV_CHECK(parsed.ok(), "the configuration of a test is valid");
  std::vector<FileTensor> tensors;
  for (const TensorSpec& spec : ListTensors(TensorsOf(*parsed))) {
    const bool matrix = spec.shape.size() == 2;
    const bool bias = spec.name.ends_with(".bias");
    std::int64_t count = 1;
    for (const std::int64_t extent : spec.shape) count *= extent;
    const float scale =
        matrix ? 1 / std::sqrt(static_cast<float>(spec.shape[1])) : (bias ? 0.5F : 0.2F);
    std::vector<float> values = testing::NormalValues(count, ++stream * 1000, scale);
    if (!matrix && !bias) {
      for (float& value : values) value += 1;
    }
    tensors.push_back(
        {spec.name, "F32", spec.shape,
         std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float))});
  }
  folder.Write("config.json", config.dump());
  folder.Write("model.safetensors", SafetensorsBytes(tensors));
}

}  // namespace maskkv::model
