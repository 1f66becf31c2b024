// SPDX-License-Identifier: Apache-2.0
#include "core/model/tensor_names.h"

namespace maskkv::model {
namespace {

// The output projection and the down projection of a block share the leaf name `ff_out` with the
// vocabulary head in LLaDA's code; the prefix tells them apart.
BlockTensors LladaBlock(const ModelConfig& config, std::int64_t index) {
  const std::string prefix = "model.transformer.blocks." + std::to_string(index) + ".";
  const std::int64_t hidden = config.hidden;
  const std::int64_t query = config.heads * config.head_dim;
  const std::int64_t key = config.kv_heads * config.head_dim;
  return {.attn_norm = {prefix + "attn_norm.weight", {hidden}},
          .query = {prefix + "q_proj.weight", {query, hidden}},
          .key = {prefix + "k_proj.weight", {key, hidden}},
          .value = {prefix + "v_proj.weight", {key, hidden}},
          .attn_out = {prefix + "attn_out.weight", {hidden, query}},
          .ffn_norm = {prefix + "ff_norm.weight", {hidden}},
          .gate = {prefix + "ff_proj.weight", {config.ffn, hidden}},
          .up = {prefix + "up_proj.weight", {config.ffn, hidden}},
          .down = {prefix + "ff_out.weight", {hidden, config.ffn}}};
}

}  // namespace

ModelTensors TensorsOf(const ModelConfig& config) {
  ModelTensors tensors;
  const std::string head = "model.transformer.ff_out.weight";
  tensors.embedding = {"model.transformer.wte.weight", {config.vocab_rows, config.hidden}};
  for (std::int64_t i = 0; i < config.layers; ++i) {
    tensors.blocks.push_back(LladaBlock(config, i));
  }
  tensors.final_norm = {"model.transformer.ln_f.weight", {config.hidden}};
  tensors.head = tensors.embedding;
  if (config.tied_head) {
    tensors.tied_copies = {head};
  } else {
    tensors.head.name = head;
  }
  return tensors;
}

std::vector<TensorSpec> ListTensors(const ModelTensors& tensors) {
  std::vector<TensorSpec> list = {tensors.embedding};
  for (const BlockTensors& block : tensors.blocks) {
    for (const TensorSpec* spec :
         {&block.attn_norm, &block.query, &block.key, &block.value, &block.attn_out,
          &block.ffn_norm, &block.gate, &block.up, &block.down}) {
      list.push_back(*spec);
    }
  }
  list.push_back(tensors.final_norm);
  if (tensors.head.name != tensors.embedding.name) list.push_back(tensors.head);
  return list;
}

}  // namespace maskkv::model
