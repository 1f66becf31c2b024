// SPDX-License-Identifier: Apache-2.0
//
// The config.json of published checkpoints, with the fields that matter here.
#ifndef MASKKV_TESTS_UNIT_CORE_MODEL_PUBLISHED_CONFIGS_H_
#define MASKKV_TESTS_UNIT_CORE_MODEL_PUBLISHED_CONFIGS_H_

#include "nlohmann/json.hpp"
#include "tests/unit/core/model/checkpoint_files.h"

namespace maskkv::model {

nlohmann::json Llada8B();     // GSAI-ML/LLaDA-8B-Instruct; LLaDA-1.5 has the same
nlohmann::json Dream7B();     // Dream-org/Dream-v0-Instruct-7B
nlohmann::json LladaMoe7B();  // inclusionAI/LLaDA-MoE-7B-A1B-Instruct

}  // namespace maskkv::model

#endif  // MASKKV_TESTS_UNIT_CORE_MODEL_PUBLISHED_CONFIGS_H_
