// SPDX-License-Identifier: Apache-2.0
//
// What enters a forward: rows, each a token at a position in a role. Mask queries are rows by role,
// never by token id. Pure functions.
#ifndef MASKKV_CORE_ENGINE_PROMPT_H_
#define MASKKV_CORE_ENGINE_PROMPT_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "core/model/config.h"

namespace maskkv::engine {

enum class Role : std::uint8_t {
  kPrompt,    // its K and V are candidates for the entry
  kResponse,  // a mask query: it votes, and is recomputed by every decode step
};

struct Row {
  std::int32_t token = 0;
  std::int32_t position = 0;
  Role role = Role::kPrompt;
};

// Prompt rows at positions 0.., then `masks` response rows with the mask id.
std::vector<Row> PromptThenMasks(std::span<const std::int32_t> prompt, std::int64_t masks,
                                 std::int32_t mask_id);

// Checks what a caller supplied: ids within the vocabulary, no mask id among them, prompt + masks
// within max_positions. Errors: INVALID_ARGUMENT naming the position and id, found, expected.
absl::Status ValidatePrompt(const model::ModelConfig& config, std::span<const std::int32_t> prompt,
                            std::int64_t masks, std::int64_t max_positions);

// The ids alone, at positions first_position and on. Errors: as above.
absl::Status ValidateIds(const model::ModelConfig& config, std::span<const std::int32_t> ids,
                         std::int64_t first_position);

}  // namespace maskkv::engine

#endif  // MASKKV_CORE_ENGINE_PROMPT_H_
