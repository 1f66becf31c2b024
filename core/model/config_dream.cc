// SPDX-License-Identifier: Apache-2.0
//
// Dream-v0 and DiffuCoder: the Qwen2 network with full attention.
#include "core/base/status_macros.h"
#include "core/model/config_fields.h"

namespace maskkv::model {

absl::Status ReadDream(const JsonField& root, ModelConfig& config) {
  config.family = ModelFamily::kDream;
  MASKKV_RETURN_IF_ERROR(ReadHuggingFaceShape(root, config));
  MASKKV_RETURN_IF_ERROR(ReadSize(root, "intermediate_size", ModelConfig::kMaxFfn, config.ffn));
  // sliding_window and max_window_layers count only where this is true.
  MASKKV_RETURN_IF_ERROR(RequireBool(root, "use_sliding_window", false));
  if (root.Find("use_mrope")) {
    MASKKV_RETURN_IF_ERROR(RequireBool(root, "use_mrope", false));
  }
  MASKKV_RETURN_IF_ERROR(ReadMaskId(root, config));
  config.qkv_bias = true;
  config.shifted_logits = true;
  config.rope_in_compute_dtype = true;
  return absl::OkStatus();
}

}  // namespace maskkv::model
