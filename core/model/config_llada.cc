// SPDX-License-Identifier: Apache-2.0
//
// LLaDA-8B, LLaDA-1.5 and iLLaDA, with the fields of LLaDA's own code.
#include "core/base/status_macros.h"
#include "core/model/config_fields.h"

namespace maskkv::model {
namespace {

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
  }
  return SetHeadDim(root, {"d_model", "n_heads", "n_kv_heads"}, config);
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
  MASKKV_RETURN_IF_ERROR(ReadEosAndPad(root, config));
  return ReadMaskId(root, config);
}

}  // namespace

absl::Status ReadLlada(const JsonField& root, ModelConfig& config) {
  config.family = ModelFamily::kLlada;
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
  return ReadTorchDtype(root, config);
}

}  // namespace maskkv::model
