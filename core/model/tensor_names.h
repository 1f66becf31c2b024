// SPDX-License-Identifier: Apache-2.0
//
// The tensors of a model by what they mean: their names in the checkpoint and their shapes, derived
// from the configuration alone. Matrices are stored (out, in), row-major: y = x W^T.
#ifndef MASKKV_CORE_MODEL_TENSOR_NAMES_H_
#define MASKKV_CORE_MODEL_TENSOR_NAMES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "core/model/config.h"

namespace maskkv::model {

struct TensorSpec {
  std::string name;
  std::vector<std::int64_t> shape;
};

struct ExpertTensors {
  TensorSpec gate;  // (ffn, hidden): goes through SiLU
  TensorSpec up;    // (ffn, hidden)
  TensorSpec down;  // (hidden, ffn)
};

struct BlockTensors {
  TensorSpec attn_norm;  // (hidden)
  TensorSpec query;      // (heads * head_dim, hidden)
  TensorSpec key;        // (kv_heads * head_dim, hidden)
  TensorSpec value;      // (kv_heads * head_dim, hidden)
  TensorSpec attn_out;   // (hidden, heads * head_dim)
  TensorSpec ffn_norm;   // (hidden)
  TensorSpec gate;       // (ffn, hidden): goes through SiLU
  TensorSpec up;         // (ffn, hidden)
  TensorSpec down;       // (hidden, ffn)
  // With qkv_bias; else without a name.
  TensorSpec query_bias;  // (heads * head_dim)
  TensorSpec key_bias;    // (kv_heads * head_dim)
  TensorSpec value_bias;  // (kv_heads * head_dim)
  // With qk_norm; else without a name.
  TensorSpec query_norm;  // (head_dim)
  TensorSpec key_norm;    // (head_dim)
  // With experts, and gate, up and down above then have no name.
  TensorSpec router;                   // (experts, hidden)
  std::vector<ExpertTensors> experts;  // config.experts, else none
};

struct ModelTensors {
  TensorSpec embedding;              // (vocab_rows, hidden)
  std::vector<BlockTensors> blocks;  // layers
  TensorSpec final_norm;             // (hidden)
  TensorSpec head;                   // (vocab_rows, hidden); the embedding's name if it is tied
  // Names that a checkpoint with a tied head may hold besides: copies of the embedding.
  std::vector<std::string> tied_copies;
};

ModelTensors TensorsOf(const ModelConfig& config);

// All of them in one list, each name once.
std::vector<TensorSpec> ListTensors(const ModelTensors& tensors);

// Elements of all of them; a tied head counts once.
std::int64_t CountParameters(const ModelConfig& config);

}  // namespace maskkv::model

#endif  // MASKKV_CORE_MODEL_TENSOR_NAMES_H_
