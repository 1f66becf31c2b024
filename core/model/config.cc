// SPDX-License-Identifier: Apache-2.0
#include "core/model/config.h"

#include "absl/status/status.h"
#include "core/base/file.h"
#include "core/base/status_macros.h"
#include "core/model/config_fields.h"
#include "core/model/json_reader.h"

namespace maskkv::model {

absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view json, std::string_view file) {
  MASKKV_ASSIGN_OR_RETURN(const JsonDocument document, JsonDocument::Parse(json, file));
  const JsonField root = document.root();
  ModelConfig config;
  MASKKV_ASSIGN_OR_RETURN(const JsonField type, root.Get("model_type"));
  MASKKV_ASSIGN_OR_RETURN(config.model_type, type.String());
  if (config.model_type == "Dream") {
    MASKKV_RETURN_IF_ERROR(ReadDream(root, config));
  } else if (config.model_type == "lladamoe" ||
             (config.model_type == "llada" && root.Find("num_experts"))) {
    // The published checkpoints say "llada" too; copies of them were renamed by other tools.
    MASKKV_RETURN_IF_ERROR(ReadLladaMoe(root, config));
  } else if (config.model_type == "llada") {
    MASKKV_RETURN_IF_ERROR(ReadLlada(root, config));
  } else {
    return type.Expected("\"llada\", \"lladamoe\" or \"Dream\", the model types supported");
  }
  return config;
}

absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& path) {
  MASKKV_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxConfigBytes));
  return ParseModelConfig(text, path);
}

}  // namespace maskkv::model
