// SPDX-License-Identifier: Apache-2.0
#include "services/common/rope_proto.h"

#include <string>

#include "core/base/error.h"
#include "core/model/rope_scaling.h"
#include "maskkv/v1/common.pb.h"

namespace maskkv::services {

absl::StatusOr<double> RopeScaleOf(const v1::RopeScaling* scaling, const model::ModelConfig& config,
                                   std::int64_t positions) {
  const auto bad = [](const std::string& message) {
    return MakeError(absl::StatusCode::kInvalidArgument, "BAD_ROPE_SCALING", message);
  };
  model::RopeScaling choice;
  if (scaling != nullptr) {
    switch (scaling->rule_case()) {
      case v1::RopeScaling::kLongllada:
        choice.rule = model::RopeScaling::Rule::kLongLlada;
        break;
      case v1::RopeScaling::kFactor:
        choice = {model::RopeScaling::Rule::kFactor, scaling->factor()};
        break;
      case v1::RopeScaling::RULE_NOT_SET:
        return bad("rope_scaling: expected longllada or factor, found neither");
    }
  }
  absl::StatusOr<double> scale = model::ResolveRopeScale(choice, config, positions);
  if (!scale.ok()) return bad(std::string(scale.status().message()));
  return scale;
}

}  // namespace maskkv::services
