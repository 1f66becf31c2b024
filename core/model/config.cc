// SPDX-License-Identifier: Apache-2.0
#include "core/model/config.h"

#include <cmath>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/base/file.h"
#include "core/base/status_macros.h"
#include "core/model/json_reader.h"

namespace maskkv::model {
namespace {

constexpr std::int64_t kMaxConfigBytes = 1 << 20;

absl::Status ReadSize(const JsonField& root, std::string_view name, std::int64_t max,
                      std::int64_t& out) {
  MASKKV_ASSIGN_OR_RETURN(const JsonField field, root.Get(name));
  MASKKV_ASSIGN_OR_RETURN(out, field.Integer(1, max));
  return absl::OkStatus();
}

absl::Status ReadTokenId(const JsonField& root, std::string_view name, std::int64_t vocabulary,
                         std::int32_t& out) {
  MASKKV_ASSIGN_OR_RETURN(const JsonField field, root.Get(name));
  MASKKV_ASSIGN_OR_RETURN(const std::int64_t id, field.Integer(0, vocabulary - 1));
  out = static_cast<std::int32_t>(id);
  return absl::OkStatus();
}

// A number strictly between the bounds.
absl::Status ReadNumber(const JsonField& root, std::string_view name, double above, double below,
                        double& out) {
  MASKKV_ASSIGN_OR_RETURN(const JsonField field, root.Get(name));
  MASKKV_ASSIGN_OR_RETURN(out, field.Number());
  if (!(out > above && out < below)) {
    return field.Expected(absl::StrCat("a number above ", above, " and below ", below));
  }
  return absl::OkStatus();
}

absl::Status RequireBool(const JsonField& root, std::string_view name, bool only) {
  MASKKV_ASSIGN_OR_RETURN(const JsonField field, root.Get(name));
  const absl::StatusOr<bool> value = field.Bool();
  if (!value.ok() || *value != only) {
    return field.Expected(only ? "true, the only layout supported"
                               : "false, the only layout supported");
  }
  return absl::OkStatus();
}

absl::Status RequireString(const JsonField& root, std::string_view name, std::string_view only) {
  MASKKV_ASSIGN_OR_RETURN(const JsonField field, root.Get(name));
  const absl::StatusOr<std::string_view> value = field.String();
  if (!value.ok() || *value != only) {
    return field.Expected(absl::StrCat("\"", std::string(only), "\", the only layout supported"));
  }
  return absl::OkStatus();
}

// The switches of the LLaDA code that change the computation.
absl::Status CheckLladaLayout(const JsonField& root) {
  MASKKV_RETURN_IF_ERROR(RequireString(root, "block_type", "llama"));
  MASKKV_RETURN_IF_ERROR(RequireString(root, "activation_type", "silu"));
  MASKKV_RETURN_IF_ERROR(RequireString(root, "layer_norm_type", "rms"));
  MASKKV_ASSIGN_OR_RETURN(const JsonField group, root.Get("block_group_size"));
  const absl::StatusOr<std::int64_t> group_size = group.Integer(1, 1);
  if (!group_size.ok()) return group.Expected("1, the only layout supported");
  for (const std::string_view name : {"rope", "rope_full_precision", "layer_norm_with_affine"}) {
    MASKKV_RETURN_IF_ERROR(RequireBool(root, name, true));
  }
  for (const std::string_view name :
       {"alibi", "attention_layer_norm", "bias_for_layer_norm", "include_bias", "include_qkv_bias",
        "input_emb_norm", "scale_logits"}) {
    MASKKV_RETURN_IF_ERROR(RequireBool(root, name, false));
  }
  return absl::OkStatus();
}

absl::Status ReadLladaHeads(const JsonField& root, ModelConfig& config) {
  MASKKV_RETURN_IF_ERROR(ReadSize(root, "n_heads", ModelConfig::kMaxHeads, config.heads));
  MASKKV_ASSIGN_OR_RETURN(const JsonField kv, root.Get("n_kv_heads"));
  if (kv.is_null()) {
    MASKKV_ASSIGN_OR_RETURN(const JsonField shared, root.Get("multi_query_attention"));
    bool multi_query = false;
    if (!shared.is_null()) {
      MASKKV_ASSIGN_OR_RETURN(multi_query, shared.Bool());
    }
    config.kv_heads = multi_query ? 1 : config.heads;
  } else {
    MASKKV_ASSIGN_OR_RETURN(config.kv_heads, kv.Integer(1, ModelConfig::kMaxHeads));
    if (config.heads % config.kv_heads != 0) {
      return kv.Expected(absl::StrCat("a divisor of n_heads = ", config.heads));
    }
  }
  MASKKV_ASSIGN_OR_RETURN(const JsonField heads, root.Get("n_heads"));
  if (config.hidden % config.heads != 0) {
    return heads.Expected(absl::StrCat("a divisor of d_model = ", config.hidden));
  }
  config.head_dim = config.hidden / config.heads;
  if (config.head_dim % 2 != 0) {
    return heads.Expected(
        absl::StrCat("an even d_model / n_heads (d_model = ", config.hidden, ")"));
  }
  return absl::OkStatus();
}

absl::Status ReadLladaFfn(const JsonField& root, ModelConfig& config) {
  MASKKV_ASSIGN_OR_RETURN(const JsonField width, root.Get("mlp_hidden_size"));
  if (!width.is_null()) {
    MASKKV_ASSIGN_OR_RETURN(config.ffn, width.Integer(1, ModelConfig::kMaxFfn));
    return absl::OkStatus();
  }
  std::int64_t ratio = 0;
  MASKKV_RETURN_IF_ERROR(ReadSize(root, "mlp_ratio", ModelConfig::kMaxFfn / config.hidden, ratio));
  config.ffn = ratio * config.hidden;
  return absl::OkStatus();
}

absl::Status ReadLladaVocabulary(const JsonField& root, ModelConfig& config) {
  MASKKV_RETURN_IF_ERROR(
      ReadSize(root, "vocab_size", ModelConfig::kMaxVocabulary, config.vocab_size));
  MASKKV_ASSIGN_OR_RETURN(const JsonField rows, root.Get("embedding_size"));
  config.vocab_rows = config.vocab_size;
  if (!rows.is_null()) {
    MASKKV_ASSIGN_OR_RETURN(config.vocab_rows,
                            rows.Integer(config.vocab_size, ModelConfig::kMaxVocabulary));
  }
  MASKKV_RETURN_IF_ERROR(ReadTokenId(root, "mask_token_id", config.vocab_rows, config.mask_id));
  MASKKV_RETURN_IF_ERROR(ReadTokenId(root, "eos_token_id", config.vocab_rows, config.eos_id));
  MASKKV_RETURN_IF_ERROR(ReadTokenId(root, "pad_token_id", config.vocab_rows, config.pad_id));
  if (config.mask_id == config.eos_id) {
    MASKKV_ASSIGN_OR_RETURN(const JsonField mask, root.Get("mask_token_id"));
    return mask.Expected(absl::StrCat("another id than eos_token_id = ", config.eos_id));
  }
  return absl::OkStatus();
}

absl::Status ReadLlada(const JsonField& root, ModelConfig& config) {
  MASKKV_RETURN_IF_ERROR(CheckLladaLayout(root));
  MASKKV_RETURN_IF_ERROR(ReadSize(root, "d_model", ModelConfig::kMaxHidden, config.hidden));
  MASKKV_RETURN_IF_ERROR(ReadSize(root, "n_layers", ModelConfig::kMaxLayers, config.layers));
  MASKKV_RETURN_IF_ERROR(ReadLladaHeads(root, config));
  MASKKV_RETURN_IF_ERROR(ReadLladaFfn(root, config));
  MASKKV_RETURN_IF_ERROR(ReadLladaVocabulary(root, config));
  MASKKV_RETURN_IF_ERROR(
      ReadSize(root, "max_sequence_length", ModelConfig::kMaxSequence, config.max_sequence));
  MASKKV_RETURN_IF_ERROR(ReadNumber(root, "rope_theta", 1.0, 1e12, config.rope_theta));
  MASKKV_RETURN_IF_ERROR(ReadNumber(root, "rms_norm_eps", 0.0, 1.0, config.rms_norm_eps));
  MASKKV_ASSIGN_OR_RETURN(const JsonField tied, root.Get("weight_tying"));
  MASKKV_ASSIGN_OR_RETURN(config.tied_head, tied.Bool());
  if (const auto dtype = root.Find("torch_dtype")) {
    MASKKV_ASSIGN_OR_RETURN(config.torch_dtype, dtype->String());
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view json, std::string_view file) {
  MASKKV_ASSIGN_OR_RETURN(const JsonDocument document, JsonDocument::Parse(json, file));
  const JsonField root = document.root();
  ModelConfig config;
  MASKKV_ASSIGN_OR_RETURN(const JsonField type, root.Get("model_type"));
  MASKKV_ASSIGN_OR_RETURN(config.model_type, type.String());
  if (config.model_type != "llada") return type.Expected("\"llada\", the model type supported");
  config.family = ModelFamily::kLlada;
  MASKKV_RETURN_IF_ERROR(ReadLlada(root, config));
  return config;
}

absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& path) {
  MASKKV_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxConfigBytes));
  return ParseModelConfig(text, path);
}

}  // namespace maskkv::model
