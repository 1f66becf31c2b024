// SPDX-License-Identifier: Apache-2.0
#include "core/model/rope_scaling.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/base/check.h"

namespace maskkv::model {

double RopeThetaFactor(double theta, std::int64_t head_dim, std::int64_t trained,
                       std::int64_t positions) {
  MASKKV_CHECK(theta > 1 && head_dim >= 2 && head_dim % 2 == 0 && trained >= 7 && positions >= 1,
               "a model with rotations");
  const double turn = 2 * std::numbers::pi;
  const auto dim = static_cast<double>(head_dim);
  const double turns_in_training = static_cast<double>(trained) / turn;
  const double critical =
      std::clamp(2 * std::ceil(dim / 2 * std::log(turns_in_training) / std::log(theta)), 2.0, dim);
  const double turns = static_cast<double>(positions) / turn;
  return std::max(1.0, std::ceil(std::pow(turns, dim / critical) / theta));
}

}  // namespace maskkv::model
