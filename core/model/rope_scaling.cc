// SPDX-License-Identifier: Apache-2.0
#include "core/model/rope_scaling.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <numbers>

#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"

namespace maskkv::model {
namespace {

constexpr double kFullCircle = 2 * std::numbers::pi;
constexpr std::int64_t kDreamTrained = 2048;

absl::Status CheckFactorInput(double theta, std::int64_t head_dim, std::int64_t trained,
                              std::int64_t length) {
  if (!(theta > 1) || !std::isfinite(theta)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("rope_theta: expected a finite number above 1, found %g", theta));
  }
  if (head_dim < 2 || head_dim % 2 != 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("head_dim: expected an even number from 2, found %d", head_dim));
  }
  if (static_cast<double>(trained) <= kFullCircle) {
    return absl::InvalidArgumentError(
        absl::StrFormat("trained positions: expected at least 7, found %d", trained));
  }
  if (length < 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("positions: expected at least 0, found %d", length));
  }
  return absl::OkStatus();
}

}  // namespace

std::int64_t TrainedPositions(const ModelConfig& config) {
  return config.family == ModelFamily::kDream ? std::min(config.max_sequence, kDreamTrained)
                                              : config.max_sequence;
}

absl::StatusOr<double> LongLladaFactor(double theta, std::int64_t head_dim, std::int64_t trained,
                                       std::int64_t length) {
  MASKKV_RETURN_IF_ERROR(CheckFactorInput(theta, head_dim, trained, length));
  if (length <= trained) return 1.0;
  const auto width = static_cast<double>(head_dim);
  const double circles = std::log(static_cast<double>(trained) / kFullCircle) / std::log(theta);
  const double critical = 2 * std::ceil(width / 2 * circles);
  const double lambda =
      std::ceil(std::pow(static_cast<double>(length) / kFullCircle, width / critical) / theta);
  MASKKV_RETURN_IF_ERROR(CheckRopeScale(lambda, theta));
  return lambda;
}

absl::StatusOr<double> ResolveRopeScale(const RopeScaling& scaling, const ModelConfig& config,
                                        std::int64_t positions) {
  switch (scaling.rule) {
    case RopeScaling::Rule::kNone:
      break;
    case RopeScaling::Rule::kLongLlada:
      return LongLladaFactor(config.rope_theta, config.head_dim, TrainedPositions(config),
                             positions);
    case RopeScaling::Rule::kFactor:
      MASKKV_RETURN_IF_ERROR(CheckRopeScale(scaling.factor, config.rope_theta));
      return scaling.factor;
  }
  return 1.0;
}

absl::Status CheckRopeScale(double scale, double theta) {
  if (scale >= 1 && std::isfinite(scale * theta)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat(
      "rope_scale: expected a number from 1 whose product with rope_theta %g is finite, found %g",
      theta, scale));
}

std::string RopeScaleText(double scale) {
  if (scale == 1) return "";
  std::array<char, 32> digits{};
  const auto [end, error] = std::to_chars(digits.data(), digits.data() + digits.size(), scale);
  return {digits.data(), end};
}

}  // namespace maskkv::model
