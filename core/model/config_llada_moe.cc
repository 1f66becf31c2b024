// SPDX-License-Identifier: Apache-2.0
//
// LLaDA-MoE-7B-A1B: sparse experts in every layer, norms of queries and keys.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/model/config_fields.h"

namespace maskkv::model {
namespace {

// The published config.json has no mask_token_id: the id is a constant of the published code.
constexpr std::int32_t kPublishedMaskId = 156895;

// Over all layers: a configuration is no reason to make an unbounded list of tensors.
constexpr std::int64_t kMaxAllExperts = 1 << 16;

// Switches of the published code that some exports leave out; what they mean then is what is
// required of them here.
absl::Status CheckSwitches(const JsonField& root) {
  for (const std::string_view name : {"attention_bias", "moe_router_enable_expert_bias"}) {
    if (root.Find(name)) MASKKV_RETURN_IF_ERROR(RequireBool(root, name, false));
  }
  for (const std::string_view name :
       {"clip_qkv", "router_num_group", "router_topk_group", "shared_expert_intermediate_size"}) {
    if (root.Find(name)) MASKKV_RETURN_IF_ERROR(RequireNull(root, name));
  }
  if (root.Find("moe_router_score_function")) {
    MASKKV_RETURN_IF_ERROR(RequireString(root, "moe_router_score_function", "softmax"));
  }
  for (const std::string_view name : {"partial_rotary_factor", "routed_scaling_factor"}) {
    const auto field = root.Find(name);
    if (!field || field->is_null()) continue;
    const absl::StatusOr<double> value = field->Number();
    if (!value.ok() || *value != 1) return field->Expected("1, the only layout supported");
  }
  return absl::OkStatus();
}

// moe_layer_freq: 1 for each layer with experts; null or absent means all have them.
absl::Status CheckEveryLayerIsSparse(const JsonField& root, std::int64_t layers) {
  const auto field = root.Find("moe_layer_freq");
  if (!field || field->is_null()) return absl::OkStatus();
  const auto one = [](const JsonField& layer) -> absl::Status {
    return layer.Integer(1, 1).ok() ? absl::OkStatus()
                                    : layer.Expected("1, the only layout supported");
  };
  MASKKV_RETURN_IF_ERROR(field->ForEachElement(one));
  if (static_cast<std::int64_t>(field->size()) == layers) return absl::OkStatus();
  return field->Expected(absl::StrCat("an element for each of num_hidden_layers = ", layers));
}

absl::Status ReadExperts(const JsonField& root, ModelConfig& config) {
  MASKKV_RETURN_IF_ERROR(
      ReadSize(root, "expert_intermediate_size", ModelConfig::kMaxFfn, config.ffn));
  MASKKV_RETURN_IF_ERROR(
      ReadSize(root, "num_experts",
               std::min(ModelConfig::kMaxExperts, kMaxAllExperts / config.layers), config.experts));
  MASKKV_RETURN_IF_ERROR(
      ReadSize(root, "num_experts_per_tok", config.experts, config.experts_per_token));
  if (const auto field = root.Find("norm_topk_prob"); field && !field->is_null()) {
    MASKKV_ASSIGN_OR_RETURN(config.renormalised_gate, field->Bool());
  }
  return CheckEveryLayerIsSparse(root, config.layers);
}

}  // namespace

absl::Status ReadLladaMoe(const JsonField& root, ModelConfig& config) {
  config.family = ModelFamily::kLladaMoe;
  MASKKV_RETURN_IF_ERROR(CheckSwitches(root));
  MASKKV_RETURN_IF_ERROR(ReadHuggingFaceShape(root, config));
  MASKKV_RETURN_IF_ERROR(ReadExperts(root, config));
  MASKKV_ASSIGN_OR_RETURN(const JsonField norm, root.Get("qk_layernorm"));
  MASKKV_ASSIGN_OR_RETURN(config.qk_norm, norm.Bool());
  config.rope_in_compute_dtype = true;
  if (root.Find("mask_token_id")) return ReadMaskId(root, config);
  config.mask_id = kPublishedMaskId;
  if (config.vocab_rows > kPublishedMaskId && config.eos_id != kPublishedMaskId) {
    return absl::OkStatus();
  }
  return root.Get("mask_token_id").status();
}

}  // namespace maskkv::model
