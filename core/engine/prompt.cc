// SPDX-License-Identifier: Apache-2.0
#include "core/engine/prompt.h"

#include <algorithm>

#include "absl/strings/str_format.h"

namespace maskkv::engine {

std::vector<Row> PromptThenMasks(std::span<const std::int32_t> prompt, std::int64_t masks,
                                 const model::ModelConfig& config) {
  std::vector<Row> rows;
  rows.reserve(prompt.size() + static_cast<std::size_t>(masks));
  std::int32_t position = 0;
  const std::int64_t servable = ServableTokens(config, static_cast<std::int64_t>(prompt.size()));
  for (const std::int32_t token : prompt) {
    rows.push_back({token, position, position < servable ? Role::kPrompt : Role::kResponse});
    ++position;
  }
  for (std::int64_t i = 0; i < masks; ++i) {
    rows.push_back({config.mask_id, position++, Role::kResponse});
  }
  return rows;
}

std::int64_t ServableTokens(const model::ModelConfig& config, std::int64_t prompt_tokens) {
  return config.shifted_logits ? std::max<std::int64_t>(prompt_tokens - 1, 0) : prompt_tokens;
}

std::vector<std::int32_t> RecomputedTail(const model::ModelConfig& config,
                                         std::span<const std::int32_t> prompt) {
  return {prompt.begin() + ServableTokens(config, static_cast<std::int64_t>(prompt.size())),
          prompt.end()};
}

absl::Status ValidatePrompt(const model::ModelConfig& config, std::span<const std::int32_t> prompt,
                            std::int64_t masks, std::int64_t max_positions) {
  const auto length = static_cast<std::int64_t>(prompt.size());
  if (masks < 1) {
    return absl::InvalidArgumentError(
        absl::StrFormat("gen_length: expected at least 1 mask, found %d", masks));
  }
  if (config.shifted_logits && prompt.empty()) {
    return absl::InvalidArgumentError(
        "prompt: expected at least one token, from which the first mask is predicted, found none");
  }
  if (masks > max_positions || length > max_positions - masks) {
    return absl::InvalidArgumentError(
        absl::StrFormat("prompt: expected at most %d positions with %d masks, found a prompt of %d "
                        "tokens",
                        max_positions, masks, length));
  }
  return ValidateIds(config, prompt, 0);
}

absl::Status ValidateIds(const model::ModelConfig& config, std::span<const std::int32_t> ids,
                         std::int64_t first_position) {
  std::int64_t position = first_position;
  for (const std::int32_t token : ids) {
    if (token < 0 || token >= config.vocab_rows) {
      return absl::InvalidArgumentError(
          absl::StrFormat("prompt: position %d: expected an id from 0 to %d, found %d", position,
                          config.vocab_rows - 1, token));
    }
    if (token == config.mask_id) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "prompt: position %d: expected no mask token, found the mask id %d", position, token));
    }
    ++position;
  }
  return absl::OkStatus();
}

absl::Status ValidateRows(const model::ModelConfig& config, std::span<const Row> rows,
                          std::int64_t max_positions) {
  bool response = false;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Row& row = rows[i];
    if (row.token < 0 || row.token >= config.vocab_rows) {
      return absl::InvalidArgumentError(
          absl::StrFormat("rows: row %d: expected an id from 0 to %d, found %d", i,
                          config.vocab_rows - 1, row.token));
    }
    if (row.position < 0 || row.position >= max_positions) {
      return absl::InvalidArgumentError(
          absl::StrFormat("rows: row %d: expected a position from 0 to %d, found %d", i,
                          max_positions - 1, row.position));
    }
    if (response && row.role == Role::kPrompt) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "rows: row %d: expected prompt rows before response rows, found a prompt row", i));
    }
    response |= row.role == Role::kResponse;
    if (i > 0 && row.role == Role::kPrompt && rows[i - 1].position >= row.position) {
      return absl::InvalidArgumentError(
          absl::StrFormat("rows: row %d: expected prompt positions to ascend, found %d after %d", i,
                          row.position, rows[i - 1].position));
    }
  }
  if (!response) {
    return absl::InvalidArgumentError("rows: expected at least one response row, found none");
  }
  return absl::OkStatus();
}

}  // namespace maskkv::engine
