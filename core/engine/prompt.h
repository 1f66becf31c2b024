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
  kPrompt,     // its K and V are candidates for the entry
  kResponse,   // a mask query, or the last prompt token of a model with shifted logits: it votes,
               // and is recomputed by every decode step
  kCommitted,  // a response row that predicts nothing any more: recomputed too, but it does not
               // vote
};

struct Row {
  std::int32_t token = 0;
  std::int32_t position = 0;
  Role role = Role::kPrompt;
};

// The prompt at positions 0.., then `masks` response rows with the mask id. Prompt rows, but the
// last one if config.shifted_logits: the first mask is predicted from it, so it is a response row.
std::vector<Row> PromptThenMasks(std::span<const std::int32_t> prompt, std::int64_t masks,
                                 const model::ModelConfig& config);

// The same with a response that is under way or that was given: (masks) ids, the mask id where
// nothing is decided. Decided tokens do not vote, unless logits are shifted and the next position,
// which they predict, is a mask; so the last prompt token of such a model votes as long as the first
// response token is one. All masks: the rows above.
// suffix: the rest of the prompt, at the positions after the response; its rows are prompt rows and
// come before the response's.
std::vector<Row> PromptThenResponse(std::span<const std::int32_t> prompt,
                                    std::span<const std::int32_t> response,
                                    const model::ModelConfig& config,
                                    std::span<const std::int32_t> suffix = {});

// A response as callers supply it: none, or `masks` ids within the vocabulary, at least one of them
// the mask id. Errors: INVALID_ARGUMENT naming the position, found, expected.
absl::Status ValidateResponse(const model::ModelConfig& config,
                              std::span<const std::int32_t> response, std::int64_t masks);

// How many of a prompt's tokens, from the first, an entry may serve: all, or all but the last if
// config.shifted_logits.
std::int64_t ServableTokens(const model::ModelConfig& config, std::int64_t prompt_tokens);

// The others: what every decode step recomputes of a prompt whose own entry serves it.
std::vector<std::int32_t> RecomputedTail(const model::ModelConfig& config,
                                         std::span<const std::int32_t> prompt);

// Checks what a caller supplied: ids within the vocabulary, no mask id among them, prompt, masks
// and the prompt's suffix within max_positions, at least one id before the masks if
// config.shifted_logits. Errors: INVALID_ARGUMENT naming the position and id, found, expected.
absl::Status ValidatePrompt(const model::ModelConfig& config, std::span<const std::int32_t> prompt,
                            std::int64_t masks, std::int64_t max_positions,
                            std::span<const std::int32_t> suffix = {});

// The ids alone, at positions first_position and on. Errors: as above.
absl::Status ValidateIds(const model::ModelConfig& config, std::span<const std::int32_t> ids,
                         std::int64_t first_position);

// The rows of a forward: ids and positions in range, prompt rows first and at ascending positions,
// no position twice, at least one response row that votes. Errors: INVALID_ARGUMENT naming the row,
// expected, found.
absl::Status ValidateRows(const model::ModelConfig& config, std::span<const Row> rows,
                          std::int64_t max_positions);

}  // namespace maskkv::engine

#endif  // MASKKV_CORE_ENGINE_PROMPT_H_
