// SPDX-License-Identifier: Apache-2.0
//
// The published configurations, and what each family's reader refuses.
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "core/model/config.h"
#include "core/model/tensor_names.h"
#include "nlohmann/json.hpp"
#include "tests/support/status_matchers.h"
#include "tests/unit/core/model/published_configs.h"

namespace maskkv::model::config_families_test {
namespace {

using maskkv::testing::IsOk;
using maskkv::testing::StatusIs;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

absl::StatusOr<ModelConfig> Parse(const json& config) {
  return ParseModelConfig(config.dump(), "config.json");
}

TEST(Families, Llada8BHasItsPublishedShapeAndParameters) {
  MASKKV_ASSERT_OK_AND_ASSIGN(const ModelConfig config, Parse(Llada8B()));
  EXPECT_EQ(config.family, ModelFamily::kLlada);
  EXPECT_EQ(config.head_dim, 128);
  EXPECT_EQ(config.ffn, 12288);
  EXPECT_EQ(config.mask_id, 126336);
  EXPECT_FALSE(config.qkv_bias || config.qk_norm || config.shifted_logits);
  EXPECT_FALSE(config.rope_in_compute_dtype || config.renormalised_gate);
  EXPECT_EQ(config.experts, 0);
  EXPECT_EQ(CountParameters(config), 8'015'581'184);
}

TEST(Families, ILladaSharesKvHeadsTiesItsHeadAndHasAnotherMask) {
  json published = Llada8B();
  published.update({{"n_kv_heads", 8}, {"weight_tying", true}, {"mask_token_id", 5}});
  MASKKV_ASSERT_OK_AND_ASSIGN(const ModelConfig config, Parse(published));
  EXPECT_EQ(config.kv_heads, 8);
  EXPECT_TRUE(config.tied_head);
  EXPECT_EQ(config.mask_id, 5);
  const ModelTensors tensors = TensorsOf(config);
  EXPECT_EQ(tensors.head.name, "model.transformer.wte.weight");
  EXPECT_EQ(tensors.tied_copies, std::vector<std::string>{"model.transformer.ff_out.weight"});
  EXPECT_EQ(tensors.blocks[31].key.shape, (std::vector<std::int64_t>{1024, 4096}));
  // 24 KV heads of K and V less in each layer, and one vocabulary matrix less.
  EXPECT_EQ(CountParameters(config),
            8'015'581'184 - 32 * 2 * 24 * 128 * std::int64_t{4096} - 126464 * std::int64_t{4096});
}

TEST(Families, Dream7BHasItsPublishedShapeAndParameters) {
  MASKKV_ASSERT_OK_AND_ASSIGN(const ModelConfig config, Parse(Dream7B()));
  EXPECT_EQ(config.family, ModelFamily::kDream);
  EXPECT_EQ(config.model_type, "Dream");
  EXPECT_EQ(config.hidden, 3584);
  EXPECT_EQ(config.layers, 28);
  EXPECT_EQ(config.heads, 28);
  EXPECT_EQ(config.kv_heads, 4);
  EXPECT_EQ(config.head_dim, 128);
  EXPECT_EQ(config.ffn, 18944);
  EXPECT_EQ(config.vocab_rows, 152064);
  EXPECT_EQ(config.vocab_size, 152064);
  EXPECT_EQ(config.max_sequence, 131072);
  EXPECT_EQ(config.rope_theta, 1e6);
  EXPECT_EQ(config.rms_norm_eps, 1e-6);
  EXPECT_EQ(config.mask_id, 151666);
  EXPECT_EQ(config.eos_id, 151643);
  EXPECT_EQ(config.pad_id, 151643);
  EXPECT_EQ(config.torch_dtype, "bfloat16");
  EXPECT_TRUE(config.qkv_bias && config.shifted_logits && config.rope_in_compute_dtype);
  EXPECT_FALSE(config.tied_head || config.qk_norm);
  EXPECT_EQ(config.experts, 0);
  EXPECT_EQ(CountParameters(config), 7'615'616'512);
}

TEST(Families, LladaMoeHasItsPublishedShapeAndParameters) {
  MASKKV_ASSERT_OK_AND_ASSIGN(const ModelConfig config, Parse(LladaMoe7B()));
  EXPECT_EQ(config.family, ModelFamily::kLladaMoe);
  EXPECT_EQ(config.head_dim, 128);
  EXPECT_EQ(config.ffn, 1024);
  EXPECT_EQ(config.experts, 64);
  EXPECT_EQ(config.experts_per_token, 8);
  EXPECT_EQ(config.mask_id, 156895) << "a constant of the published code, not in its config.json";
  EXPECT_EQ(config.eos_id, 156892);
  EXPECT_EQ(config.rope_theta, 50000.0);
  EXPECT_TRUE(config.qk_norm);
  EXPECT_FALSE(config.renormalised_gate || config.shifted_logits || config.qkv_bias);
  // Attention, router, experts and norms of 16 layers; embedding, head, final norm.
  const std::int64_t width = 2048;
  const std::int64_t layer =
      4 * width * width + 64 * width + 64 * 3 * width * 1024 + 2 * width + 2 * 128;
  EXPECT_EQ(CountParameters(config), 16 * layer + 2 * 157184 * width + width);
}

TEST(Families, LladaMoeSaysItsMaskIfItsConfigDoes) {
  json config = LladaMoe7B();
  config["mask_token_id"] = 7;
  config["model_type"] = "lladamoe";
  config["norm_topk_prob"] = true;
  EXPECT_EQ(Parse(config)->mask_id, 7);
  EXPECT_TRUE(Parse(config)->renormalised_gate);
  config["mask_token_id"] = 156892;
  EXPECT_THAT(Parse(config), StatusIs(kInvalid, HasSubstr("another id than eos_token_id")));
  config.erase("mask_token_id");
  config["vocab_size"] = 156895;
  EXPECT_THAT(Parse(config), StatusIs(kInvalid, HasSubstr("field mask_token_id: expected")));
}

TEST(Families, EveryFieldThatIsUsedMustBeThere) {
  const std::vector<std::string> shared = {
      "hidden_act",   "hidden_size",  "num_hidden_layers",   "num_attention_heads",
      "vocab_size",   "rope_theta",   "num_key_value_heads", "max_position_embeddings",
      "rms_norm_eps", "rope_scaling", "tie_word_embeddings", "eos_token_id",
      "pad_token_id"};
  std::vector<std::string> dream = shared, moe = shared;
  dream.insert(dream.end(), {"intermediate_size", "mask_token_id", "use_sliding_window"});
  moe.insert(moe.end(), {"expert_intermediate_size", "num_experts_per_tok", "qk_layernorm"});
  for (const auto& [published, fields] :
       {std::pair{Dream7B(), dream}, std::pair{LladaMoe7B(), moe}}) {
    for (const std::string& field : fields) {
      json config = published;
      config.erase(field);
      EXPECT_THAT(Parse(config),
                  StatusIs(kInvalid, HasSubstr("config.json: field " + field + ": expected")));
      config[field] = json::object();
      EXPECT_THAT(Parse(config),
                  StatusIs(kInvalid,
                           AllOf(HasSubstr("field " + field + ": expected"), HasSubstr("found"))));
    }
  }
}

TEST(Families, OtherLayoutsAreRefused) {
  const auto refused = [](json config, const std::string& field, const json& value) {
    config[field] = value;
    EXPECT_THAT(Parse(config), StatusIs(kInvalid, AllOf(HasSubstr("field " + field),
                                                        HasSubstr("the only layout supported"))))
        << value;
  };
  for (const auto& [field, value] :
       std::vector<std::pair<std::string, json>>{{"hidden_act", "gelu"},
                                                 {"rope_scaling", {{"type", "yarn"}}},
                                                 {"use_sliding_window", true},
                                                 {"use_mrope", true}}) {
    refused(Dream7B(), field, value);
  }
  std::vector<int> dense_first(16, 1);
  dense_first[0] = 0;
  for (const auto& [field, value] :
       std::vector<std::pair<std::string, json>>{{"attention_bias", true},
                                                 {"moe_router_enable_expert_bias", true},
                                                 {"clip_qkv", 8.0},
                                                 {"router_num_group", 4},
                                                 {"router_topk_group", 2},
                                                 {"shared_expert_intermediate_size", 1024},
                                                 {"moe_router_score_function", "sigmoid"},
                                                 {"partial_rotary_factor", 0.5},
                                                 {"routed_scaling_factor", 2.5},
                                                 {"moe_layer_freq", dense_first}}) {
    refused(LladaMoe7B(), field, value);
  }
}

TEST(Families, SizesMustFitTogether) {
  json config = Dream7B();
  config["num_key_value_heads"] = 5;
  EXPECT_THAT(Parse(config),
              StatusIs(kInvalid, HasSubstr("a divisor of num_attention_heads = 28")));
  config = Dream7B();
  config["hidden_size"] = 3585;
  EXPECT_THAT(Parse(config), StatusIs(kInvalid, HasSubstr("a divisor of hidden_size = 3585")));
  config = LladaMoe7B();
  config["num_experts_per_tok"] = 65;
  EXPECT_THAT(Parse(config), StatusIs(kInvalid, HasSubstr("an integer between 1 and 64")));
  config = LladaMoe7B();
  config["moe_layer_freq"] = {1, 1};
  EXPECT_THAT(Parse(config), StatusIs(kInvalid, HasSubstr("each of num_hidden_layers = 16")));
  config = LladaMoe7B();
  config["num_experts"] = 4097;
  EXPECT_THAT(Parse(config), StatusIs(kInvalid, HasSubstr("field num_experts: expected")));
}

TEST(Families, TensorsHaveTheNamesAndShapesOfTheCheckpoints) {
  using Shape = std::vector<std::int64_t>;
  const ModelTensors dream = TensorsOf(*Parse(Dream7B()));
  EXPECT_EQ(dream.embedding.name, "model.embed_tokens.weight");
  EXPECT_EQ(dream.final_norm.name, "model.norm.weight");
  EXPECT_EQ(dream.head.name, "lm_head.weight");
  const BlockTensors& block = dream.blocks[27];
  EXPECT_EQ(block.attn_norm.name, "model.layers.27.input_layernorm.weight");
  EXPECT_EQ(block.ffn_norm.name, "model.layers.27.post_attention_layernorm.weight");
  EXPECT_EQ(block.query_bias.name, "model.layers.27.self_attn.q_proj.bias");
  EXPECT_EQ(block.query_bias.shape, Shape{3584});
  EXPECT_EQ(block.key_bias.shape, Shape{512});
  EXPECT_EQ(block.value_bias.name, "model.layers.27.self_attn.v_proj.bias");
  EXPECT_EQ(block.attn_out.name, "model.layers.27.self_attn.o_proj.weight");
  EXPECT_EQ(block.gate.name, "model.layers.27.mlp.gate_proj.weight");
  EXPECT_EQ(block.down.shape, (Shape{3584, 18944}));
  EXPECT_EQ(block.query_norm.name, "");
  EXPECT_EQ(ListTensors(dream).size(), 3U + 28 * 12);

  const ModelTensors moe = TensorsOf(*Parse(LladaMoe7B()));
  const BlockTensors& sparse = moe.blocks[3];
  EXPECT_EQ(sparse.query_norm.name, "model.layers.3.self_attn.q_norm.weight");
  EXPECT_EQ(sparse.key_norm.shape, Shape{128});
  EXPECT_EQ(sparse.router.name, "model.layers.3.mlp.gate.weight");
  EXPECT_EQ(sparse.router.shape, (Shape{64, 2048}));
  EXPECT_EQ(sparse.gate.name, "");
  ASSERT_EQ(sparse.experts.size(), 64U);
  EXPECT_EQ(sparse.experts[63].down.name, "model.layers.3.mlp.experts.63.down_proj.weight");
  EXPECT_EQ(sparse.experts[63].down.shape, (Shape{2048, 1024}));
  EXPECT_EQ(ListTensors(moe).size(), 3U + 16 * (9 + 64 * 3));
}

}  // namespace
}  // namespace maskkv::model::config_families_test
