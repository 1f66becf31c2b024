// SPDX-License-Identifier: Apache-2.0
//
// LongLLaDA (arXiv 2506.14429): prompts longer than a model was trained on are read by rotating
// more slowly, with rope_theta multiplied by one factor that is fixed before the first key of a
// request is computed. Pure function.
#ifndef MASKKV_CORE_MODEL_ROPE_SCALING_H_
#define MASKKV_CORE_MODEL_ROPE_SCALING_H_

#include <cstdint>

namespace maskkv::model {

// lambda = ceil(theta^-1 * (T / 2 pi)^(d / d_crit)), at least 1: the factor for `positions` = T
// positions. d_crit = 2 * ceil(d / 2 * log_theta(T_train / 2 pi)), at least 2 and at most d, counts
// the dimensions that turned once within the training length T_train = `trained`.
// REQUIRES: theta > 1; head_dim = d >= 2 and even; trained >= 7 (a full turn); positions >= 1.
double RopeThetaFactor(double theta, std::int64_t head_dim, std::int64_t trained,
                       std::int64_t positions);

}  // namespace maskkv::model

#endif  // MASKKV_CORE_MODEL_ROPE_SCALING_H_
