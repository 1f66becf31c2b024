// SPDX-License-Identifier: Apache-2.0
//
// The RoPE scaling that a request asks for. Pure function.
#ifndef MASKKV_SERVICES_COMMON_ROPE_PROTO_H_
#define MASKKV_SERVICES_COMMON_ROPE_PROTO_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "core/model/config.h"

namespace maskkv::v1 {
class RopeScaling;
}

namespace maskkv::services {

// The factor of rope_theta for `positions` of prompt and masks; 1 without scaling.
// scaling: null if the request says nothing.
// Errors: INVALID_ARGUMENT (BAD_ROPE_SCALING): no rule, a factor that is none, a model for which
// LongLLaDA has no factor.
absl::StatusOr<double> RopeScaleOf(const v1::RopeScaling* scaling, const model::ModelConfig& config,
                                   std::int64_t positions);

}  // namespace maskkv::services

#endif  // MASKKV_SERVICES_COMMON_ROPE_PROTO_H_
