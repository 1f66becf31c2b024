// SPDX-License-Identifier: Apache-2.0
#include "core/model/config_fields.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace maskkv::model {
namespace {

absl::Status ReadTokenId(const JsonField& root, std::string_view name, std::int64_t vocabulary,
                         std::int32_t& out) {
  MASKKV_ASSIGN_OR_RETURN(const JsonField field, root.Get(name));
  MASKKV_ASSIGN_OR_RETURN(const std::int64_t id, field.Integer(0, vocabulary - 1));
  out = static_cast<std::int32_t>(id);
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadSize(const JsonField& root, std::string_view name, std::int64_t max,
                      std::int64_t& out) {
  MASKKV_ASSIGN_OR_RETURN(const JsonField field, root.Get(name));
  MASKKV_ASSIGN_OR_RETURN(out, field.Integer(1, max));
  return absl::OkStatus();
}

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

absl::Status RequireNull(const JsonField& root, std::string_view name) {
  MASKKV_ASSIGN_OR_RETURN(const JsonField field, root.Get(name));
  return field.is_null() ? absl::OkStatus() : field.Expected("null, the only layout supported");
}

absl::Status SetHeadDim(const JsonField& root, const HeadFields& names, ModelConfig& config) {
  MASKKV_ASSIGN_OR_RETURN(const JsonField kv, root.Get(names.kv_heads));
  if (config.heads % config.kv_heads != 0) {
    return kv.Expected(
        absl::StrCat("a divisor of ", std::string(names.heads), " = ", config.heads));
  }
  MASKKV_ASSIGN_OR_RETURN(const JsonField heads, root.Get(names.heads));
  const std::string hidden(names.hidden);
  if (config.hidden % config.heads != 0) {
    return heads.Expected(absl::StrCat("a divisor of ", hidden, " = ", config.hidden));
  }
  config.head_dim = config.hidden / config.heads;
  if (config.head_dim % 2 != 0) {
    return heads.Expected(absl::StrCat("an even ", hidden, " / ", std::string(names.heads), " (",
                                       hidden, " = ", config.hidden, ")"));
  }
  return absl::OkStatus();
}

absl::Status ReadEosAndPad(const JsonField& root, ModelConfig& config) {
  MASKKV_RETURN_IF_ERROR(ReadTokenId(root, "eos_token_id", config.vocab_rows, config.eos_id));
  return ReadTokenId(root, "pad_token_id", config.vocab_rows, config.pad_id);
}

absl::Status ReadMaskId(const JsonField& root, ModelConfig& config) {
  MASKKV_RETURN_IF_ERROR(ReadTokenId(root, "mask_token_id", config.vocab_rows, config.mask_id));
  if (config.mask_id != config.eos_id) return absl::OkStatus();
  MASKKV_ASSIGN_OR_RETURN(const JsonField mask, root.Get("mask_token_id"));
  return mask.Expected(absl::StrCat("another id than eos_token_id = ", config.eos_id));
}

absl::Status ReadTorchDtype(const JsonField& root, ModelConfig& config) {
  if (const auto dtype = root.Find("torch_dtype")) {
    MASKKV_ASSIGN_OR_RETURN(config.torch_dtype, dtype->String());
  }
  return absl::OkStatus();
}

absl::Status ReadHuggingFaceShape(const JsonField& root, ModelConfig& config) {
  MASKKV_RETURN_IF_ERROR(RequireString(root, "hidden_act", "silu"));
  MASKKV_RETURN_IF_ERROR(RequireNull(root, "rope_scaling"));
  MASKKV_RETURN_IF_ERROR(ReadSize(root, "hidden_size", ModelConfig::kMaxHidden, config.hidden));
  MASKKV_RETURN_IF_ERROR(
      ReadSize(root, "num_hidden_layers", ModelConfig::kMaxLayers, config.layers));
  MASKKV_RETURN_IF_ERROR(
      ReadSize(root, "num_attention_heads", ModelConfig::kMaxHeads, config.heads));
  MASKKV_RETURN_IF_ERROR(
      ReadSize(root, "num_key_value_heads", ModelConfig::kMaxHeads, config.kv_heads));
  MASKKV_RETURN_IF_ERROR(
      SetHeadDim(root, {"hidden_size", "num_attention_heads", "num_key_value_heads"}, config));
  MASKKV_RETURN_IF_ERROR(
      ReadSize(root, "vocab_size", ModelConfig::kMaxVocabulary, config.vocab_rows));
  config.vocab_size = config.vocab_rows;
  MASKKV_RETURN_IF_ERROR(ReadEosAndPad(root, config));
  MASKKV_RETURN_IF_ERROR(
      ReadSize(root, "max_position_embeddings", ModelConfig::kMaxSequence, config.max_sequence));
  MASKKV_RETURN_IF_ERROR(ReadNumber(root, "rope_theta", 1.0, 1e12, config.rope_theta));
  MASKKV_RETURN_IF_ERROR(ReadNumber(root, "rms_norm_eps", 0.0, 1.0, config.rms_norm_eps));
  MASKKV_ASSIGN_OR_RETURN(const JsonField tied, root.Get("tie_word_embeddings"));
  MASKKV_ASSIGN_OR_RETURN(config.tied_head, tied.Bool());
  return ReadTorchDtype(root, config);
}

}  // namespace maskkv::model
