// SPDX-License-Identifier: Apache-2.0
//
// The shape of a model, read from the config.json of its checkpoint. Every value comes from the
// file: a field that is missing is an error, never a default, because the defaults in public model
// code differ from what the published checkpoints say. Fields that switch the layout of the network
// (biases, norms, activation, position encoding) are checked against the one layout that is
// implemented, so that a checkpoint which would be computed wrongly is refused here.
//
// Invariants of a ModelConfig made by ParseModelConfig: every size is positive and within the
// limits of kMax... below, so that products of any three of them fit an int64; hidden == heads *
// head_dim; head_dim is even; heads % kv_heads == 0; the ids are rows of the vocabulary; mask_id !=
// eos_id.
#ifndef MASKKV_CORE_MODEL_CONFIG_H_
#define MASKKV_CORE_MODEL_CONFIG_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace maskkv::model {

// Which network the checkpoint holds: names of fields and tensors, biases, chat template.
enum class ModelFamily : std::uint8_t {
  kLlada,     // LLaDA-8B, LLaDA-1.5, iLLaDA: model_type "llada"
  kDream,     // Dream-v0, DiffuCoder: model_type "Dream", the Qwen2 network
  kLladaMoe,  // LLaDA-MoE-7B-A1B: sparse experts, norms of queries and keys
};

struct ModelConfig {
  // Largest sizes accepted: several times what any published model of this class has.
  static constexpr std::int64_t kMaxHidden = 1 << 16;
  static constexpr std::int64_t kMaxLayers = 1 << 10;
  static constexpr std::int64_t kMaxHeads = 1 << 10;
  static constexpr std::int64_t kMaxFfn = 1 << 20;
  static constexpr std::int64_t kMaxExperts = 1 << 10;
  static constexpr std::int64_t kMaxVocabulary = 1 << 22;
  static constexpr std::int64_t kMaxSequence = 1 << 24;

  ModelFamily family = ModelFamily::kLlada;
  std::string model_type;   // as in the file
  std::int64_t hidden = 0;  // width of the residual stream
  std::int64_t layers = 0;
  std::int64_t heads = 0;  // query heads
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t ffn = 0;           // width of gate and up
  std::int64_t vocab_rows = 0;    // rows of the embedding and of the head
  std::int64_t vocab_size = 0;    // ids that mean something: <= vocab_rows
  std::int64_t max_sequence = 0;  // positions the model was trained on
  double rope_theta = 0.0;
  double rms_norm_eps = 0.0;
  bool tied_head = false;  // the head is the embedding matrix
  bool qkv_bias = false;   // query, key and value projections add a bias
  bool qk_norm = false;    // RMSNorm over each head's query and key, before RoPE
  // The prediction for position i is the head's output at position i - 1 (Dream). The row before
  // the first mask is then recomputed by every step and never part of an entry.
  bool shifted_logits = false;
  // Published code casts the sines and cosines of RoPE to the dtype of the activations (Dream).
  bool rope_in_compute_dtype = false;
  // Sparse experts in the place of the FFN, `ffn` wide each; 0: one dense FFN. A row goes through
  // the experts_per_token experts of highest softmax(router x), weighted by it; the weights are
  // divided by their sum if renormalised_gate.
  std::int64_t experts = 0;
  std::int64_t experts_per_token = 0;
  bool renormalised_gate = false;
  std::int32_t mask_id = 0;
  std::int32_t eos_id = 0;
  std::int32_t pad_id = 0;
  // What the file says of its weights, empty if it says nothing; tensors carry their own types.
  std::string torch_dtype;
};

// A longer config.json is no configuration.
inline constexpr std::int64_t kMaxConfigBytes = 1 << 20;

// Parses the text of a config.json; `file` is only for messages.
// Errors: INVALID_ARGUMENT "FILE: field F: expected ..., found ...".
absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view json, std::string_view file);

// Reads `path`, at most kMaxConfigBytes. Errors: also NOT_FOUND, PERMISSION_DENIED.
absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& path);

}  // namespace maskkv::model

#endif  // MASKKV_CORE_MODEL_CONFIG_H_
