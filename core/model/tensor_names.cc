// SPDX-License-Identifier: Apache-2.0
#include "core/model/tensor_names.h"

namespace maskkv::model {
namespace {

// Prefixes and leaf names, in which the families differ; shapes are the same for all.
struct Names {
  std::string embedding, final_norm, head, blocks;
  std::string attn_norm, query, key, value, attn_out;
  std::string ffn_norm, gate, up, down;
};

// The output projection and the down projection of a block share the leaf name `ff_out` with the
// vocabulary head in LLaDA's code; the prefix tells them apart.
Names LladaNames() {
  return {.embedding = "model.transformer.wte",
          .final_norm = "model.transformer.ln_f",
          .head = "model.transformer.ff_out",
          .blocks = "model.transformer.blocks.",
          .attn_norm = "attn_norm",
          .query = "q_proj",
          .key = "k_proj",
          .value = "v_proj",
          .attn_out = "attn_out",
          .ffn_norm = "ff_norm",
          .gate = "ff_proj",
          .up = "up_proj",
          .down = "ff_out"};
}

// Qwen2's and OLMoE's.
Names HuggingFaceNames() {
  return {.embedding = "model.embed_tokens",
          .final_norm = "model.norm",
          .head = "lm_head",
          .blocks = "model.layers.",
          .attn_norm = "input_layernorm",
          .query = "self_attn.q_proj",
          .key = "self_attn.k_proj",
          .value = "self_attn.v_proj",
          .attn_out = "self_attn.o_proj",
          .ffn_norm = "post_attention_layernorm",
          .gate = "mlp.gate_proj",
          .up = "mlp.up_proj",
          .down = "mlp.down_proj"};
}

constexpr char kWeight[] = ".weight";
constexpr char kBias[] = ".bias";

void AddExperts(const ModelConfig& config, const std::string& prefix, BlockTensors& block) {
  block.router = {prefix + "mlp.gate.weight", {config.experts, config.hidden}};
  for (std::int64_t e = 0; e < config.experts; ++e) {
    const std::string expert = prefix + "mlp.experts." + std::to_string(e) + ".";
    block.experts.push_back({.gate = {expert + "gate_proj.weight", {config.ffn, config.hidden}},
                             .up = {expert + "up_proj.weight", {config.ffn, config.hidden}},
                             .down = {expert + "down_proj.weight", {config.hidden, config.ffn}}});
  }
}

BlockTensors Block(const ModelConfig& config, const Names& names, std::int64_t index) {
  const std::string prefix = names.blocks + std::to_string(index) + ".";
  const std::int64_t hidden = config.hidden;
  const std::int64_t query = config.heads * config.head_dim;
  const std::int64_t key = config.kv_heads * config.head_dim;
  BlockTensors block;
  block.attn_norm = {prefix + names.attn_norm + kWeight, {hidden}};
  block.query = {prefix + names.query + kWeight, {query, hidden}};
  block.key = {prefix + names.key + kWeight, {key, hidden}};
  block.value = {prefix + names.value + kWeight, {key, hidden}};
  block.attn_out = {prefix + names.attn_out + kWeight, {hidden, query}};
  block.ffn_norm = {prefix + names.ffn_norm + kWeight, {hidden}};
  if (config.qkv_bias) {
    block.query_bias = {prefix + names.query + kBias, {query}};
    block.key_bias = {prefix + names.key + kBias, {key}};
    block.value_bias = {prefix + names.value + kBias, {key}};
  }
  if (config.qk_norm) {
    block.query_norm = {prefix + "self_attn.q_norm.weight", {config.head_dim}};
    block.key_norm = {prefix + "self_attn.k_norm.weight", {config.head_dim}};
  }
  if (config.experts > 0) {
    AddExperts(config, prefix, block);
  } else {
    block.gate = {prefix + names.gate + kWeight, {config.ffn, hidden}};
    block.up = {prefix + names.up + kWeight, {config.ffn, hidden}};
    block.down = {prefix + names.down + kWeight, {hidden, config.ffn}};
  }
  return block;
}

}  // namespace

ModelTensors TensorsOf(const ModelConfig& config) {
  const Names names = config.family == ModelFamily::kLlada ? LladaNames() : HuggingFaceNames();
  ModelTensors tensors;
  tensors.embedding = {names.embedding + kWeight, {config.vocab_rows, config.hidden}};
  for (std::int64_t i = 0; i < config.layers; ++i) {
    tensors.blocks.push_back(Block(config, names, i));
  }
  tensors.final_norm = {names.final_norm + kWeight, {config.hidden}};
  tensors.head = tensors.embedding;
  if (config.tied_head) {
    tensors.tied_copies = {names.head + kWeight};
  } else {
    tensors.head.name = names.head + kWeight;
  }
  return tensors;
}

std::vector<TensorSpec> ListTensors(const ModelTensors& tensors) {
  std::vector<TensorSpec> list = {tensors.embedding};
  for (const BlockTensors& block : tensors.blocks) {
    for (const TensorSpec* spec :
         {&block.attn_norm, &block.query, &block.key, &block.value, &block.attn_out,
          &block.ffn_norm, &block.gate, &block.up, &block.down, &block.query_bias, &block.key_bias,
          &block.value_bias, &block.query_norm, &block.key_norm, &block.router}) {
      if (!spec->name.empty()) list.push_back(*spec);
    }
    for (const ExpertTensors& expert : block.experts) {
      list.insert(list.end(), {expert.gate, expert.up, expert.down});
    }
  }
  list.push_back(tensors.final_norm);
  if (tensors.head.name != tensors.embedding.name) list.push_back(tensors.head);
  return list;
}

std::int64_t CountParameters(const ModelConfig& config) {
  std::int64_t count = 0;
  for (const TensorSpec& spec : ListTensors(TensorsOf(config))) {
    std::int64_t elements = 1;
    for (const std::int64_t extent : spec.shape) elements *= extent;
    count += elements;
  }
  return count;
}

}  // namespace maskkv::model
