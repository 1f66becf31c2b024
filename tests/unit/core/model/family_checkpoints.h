// SPDX-License-Identifier: Apache-2.0
//
// Checkpoints of every family, small enough for a test and with random weights.
#ifndef MASKKV_TESTS_UNIT_CORE_MODEL_FAMILY_CHECKPOINTS_H_
#define MASKKV_TESTS_UNIT_CORE_MODEL_FAMILY_CHECKPOINTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "tests/unit/core/model/checkpoint_files.h"

namespace maskkv::model {

// "llada" (shared KV heads and a tied head, as iLLaDA), "dream", "moe" and
// "moe_renormalised". Hidden 32, 3 layers, 8 heads, 90 rows of vocabulary, mask 89, eos 88.
std::vector<std::string> FamilyNames();
nlohmann::json FamilyConfig(const std::string& name);

// Writes config.json and model.safetensors into the folder: normal values in F32, scaled so that
// activations keep their size; norms around 1.
void WriteRandomCheckpoint(const TemporaryFolder& folder, const nlohmann::json& config,
                           std::uint64_t stream);

}  // namespace maskkv::model

#endif  // MASKKV_TESTS_UNIT_CORE_MODEL_FAMILY_CHECKPOINTS_H_
