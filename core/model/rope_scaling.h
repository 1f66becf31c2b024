// SPDX-License-Identifier: Apache-2.0
//
// How much larger RoPE's base is for inputs longer than a model was trained on. Rotations that did
// not come full circle within the trained length meet angles the model never saw beyond it; a
// larger base slows them down. LongLLaDA (arXiv 2506.14429) gives the factor lambda for a length T
// of prompt and answer:
//
//   lambda = ceil(theta^-1 (T / 2 pi)^(d / d_crit)), d_crit = 2 ceil(d/2 log_theta(T_train / 2 pi))
//
// Keys are cached after they are rotated, so the factor of a prompt is settled before its first key
// is computed and belongs to its entry. Pure functions.
#ifndef MASKKV_CORE_MODEL_ROPE_SCALING_H_
#define MASKKV_CORE_MODEL_ROPE_SCALING_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/model/config.h"

namespace maskkv::model {

// What a caller chooses; a factor follows from it and from a length.
struct RopeScaling {
  enum class Rule : std::uint8_t {
    kNone,       // the checkpoint's base
    kLongLlada,  // lambda for the length
    kFactor,     // `factor` for any length
  };
  Rule rule = Rule::kNone;
  double factor = 1;

  bool operator==(const RopeScaling&) const = default;
};

// T_train. Dream's config.json has the length of the model that it was initialised from, so its
// published 2,048 counts where the file says more.
std::int64_t TrainedPositions(const ModelConfig& config);

// lambda, an integer; 1 for lengths up to the trained one. Never falls with the length.
// Errors: INVALID_ARGUMENT for theta not above 1 or not finite, a head_dim that is odd or below 2,
// a trained length of 6 or less (no rotation comes full circle in it), a negative length, and where
// lambda * theta is no finite number.
absl::StatusOr<double> LongLladaFactor(double theta, std::int64_t head_dim, std::int64_t trained,
                                       std::int64_t length);

// The factor for `positions` of prompt and masks together; 1 is none.
// Errors: of LongLladaFactor and CheckRopeScale.
absl::StatusOr<double> ResolveRopeScale(const RopeScaling& scaling, const ModelConfig& config,
                                        std::int64_t positions);

// Errors: INVALID_ARGUMENT unless scale >= 1 and theta * scale is finite.
absl::Status CheckRopeScale(double scale, double theta);

// What a cache key holds of a factor: "" for 1, else its shortest exact decimals.
std::string RopeScaleText(double scale);

}  // namespace maskkv::model

#endif  // MASKKV_CORE_MODEL_ROPE_SCALING_H_
