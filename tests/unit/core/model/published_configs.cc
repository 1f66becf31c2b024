// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/core/model/published_configs.h"

#include <vector>

#include "tests/unit/core/model/checkpoint_files.h"

namespace maskkv::model {

nlohmann::json Llada8B() {
  nlohmann::json config = SmallConfig();
  config.update({{"d_model", 4096},
                 {"n_layers", 32},
                 {"n_heads", 32},
                 {"n_kv_heads", 32},
                 {"mlp_hidden_size", 12288},
                 {"vocab_size", 126464},
                 {"embedding_size", 126464},
                 {"mask_token_id", 126336},
                 {"eos_token_id", 126081},
                 {"pad_token_id", 126081},
                 {"max_sequence_length", 4096}});
  return config;
}

nlohmann::json Dream7B() {
  return {{"architectures", {"DreamModel"}},
          {"attention_dropout", 0.0},
          {"bos_token_id", 151643},
          {"eos_token_id", 151643},
          {"hidden_act", "silu"},
          {"hidden_size", 3584},
          {"initializer_range", 0.02},
          {"intermediate_size", 18944},
          {"mask_token_id", 151666},
          {"max_position_embeddings", 131072},
          {"max_window_layers", 28},
          {"model_type", "Dream"},
          {"num_attention_heads", 28},
          {"num_hidden_layers", 28},
          {"num_key_value_heads", 4},
          {"pad_token_id", 151643},
          {"rms_norm_eps", 1e-6},
          {"rope_scaling", nullptr},
          {"rope_theta", 1000000.0},
          {"sliding_window", nullptr},
          {"tie_word_embeddings", false},
          {"torch_dtype", "bfloat16"},
          {"use_cache", true},
          {"use_mrope", false},
          {"use_sliding_window", false},
          {"vocab_size", 152064}};
}

nlohmann::json LladaMoe7B() {
  return {{"architectures", {"LLaDAMoEModel"}},
          {"attention_bias", false},
          {"clip_qkv", nullptr},
          {"dense_intermediate_size", 8192},
          {"eos_token_id", 156892},
          {"expert_intermediate_size", 1024},
          {"hidden_act", "silu"},
          {"hidden_size", 2048},
          {"max_position_embeddings", 8192},
          {"model_type", "llada"},
          {"moe_layer_freq", std::vector<int>(16, 1)},
          {"moe_router_enable_expert_bias", false},
          {"moe_router_score_function", "softmax"},
          {"norm_topk_prob", nullptr},
          {"num_attention_heads", 16},
          {"num_experts", 64},
          {"num_experts_per_tok", 8},
          {"num_hidden_layers", 16},
          {"num_key_value_heads", 16},
          {"pad_token_id", 156892},
          {"partial_rotary_factor", 1},
          {"qk_layernorm", true},
          {"rms_norm_eps", 1e-5},
          {"rope_scaling", nullptr},
          {"rope_theta", 50000.0},
          {"routed_scaling_factor", 1},
          {"router_num_group", nullptr},
          {"router_topk_group", nullptr},
          {"shared_expert_intermediate_size", nullptr},
          {"tie_word_embeddings", false},
          {"torch_dtype", "bfloat16"},
          {"vocab_size", 157184}};
}

}  // namespace maskkv::model
