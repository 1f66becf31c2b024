// SPDX-License-Identifier: Apache-2.0
#include "core/engine/prompt.h"

#include <algorithm>

#include "absl/strings/str_format.h"

namespace maskkv::engine {

std::vector<Row> PromptThenMasks(std::span<const std::int32_t> prompt, std::int64_t masks,
                                 const model::ModelConfig& config) {
  return PromptThenResponse(
      prompt, std::vector<std::int32_t>(static_cast<std::size_t>(masks), config.mask_id), config);
}

std::vector<Row> PromptThenResponse(std::span<const std::int32_t> prompt,
                                    std::span<const std::int32_t> response,
                                    const model::ModelConfig& config,
                                    std::span<const std::int32_t> suffix) {
  std::vector<Row> rows;
  rows.reserve(prompt.size() + response.size() + suffix.size());
  const auto servable =
      static_cast<std::size_t>(ServableTokens(config, static_cast<std::int64_t>(prompt.size())));
  std::int32_t position = 0;
  const auto add = [&](std::span<const std::int32_t> tokens, auto role) {
    for (const std::int32_t token : tokens) rows.push_back({token, position++, role(token)});
  };
  const auto is_prompt = [](std::int32_t) { return Role::kPrompt; };
  const auto masked = [&](std::size_t i) {
    return i < response.size() && response[i] == config.mask_id;
  };
  const Role tail = response.empty() || masked(0) ? Role::kResponse : Role::kCommitted;
  add(prompt.first(servable), is_prompt);
  position = static_cast<std::int32_t>(prompt.size() + response.size());
  add(suffix, is_prompt);
  position = static_cast<std::int32_t>(servable);
  add(prompt.subspan(servable), [&](std::int32_t) { return tail; });
  for (std::size_t i = 0; i < response.size(); ++i) {
    // A decided token votes too where its row predicts the mask behind it.
    const bool votes = masked(i) || (config.shifted_logits && masked(i + 1));
    rows.push_back({response[i], position++, votes ? Role::kResponse : Role::kCommitted});
  }
  return rows;
}

absl::Status ValidateResponse(const model::ModelConfig& config,
                              std::span<const std::int32_t> response, std::int64_t masks) {
  if (response.empty()) return absl::OkStatus();
  if (static_cast<std::int64_t>(response.size()) != masks) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "response: expected as many ids as masks, %d, found %d", masks, response.size()));
  }
  for (std::size_t i = 0; i < response.size(); ++i) {
    if (response[i] < 0 || response[i] >= config.vocab_rows) {
      return absl::InvalidArgumentError(
          absl::StrFormat("response: position %d: expected an id from 0 to %d, found %d", i,
                          config.vocab_rows - 1, response[i]));
    }
  }
  if (std::ranges::count(response, config.mask_id) == 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("response: expected at least one mask, id %d, found none", config.mask_id));
  }
  return absl::OkStatus();
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
                            std::int64_t masks, std::int64_t max_positions,
                            std::span<const std::int32_t> suffix) {
  const auto before = static_cast<std::int64_t>(prompt.size());
  const std::int64_t length = before + std::ssize(suffix);
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
  if (const absl::Status status = ValidateIds(config, prompt, 0); !status.ok()) return status;
  return ValidateIds(config, suffix, before + masks);
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
  bool after_prompt = false, votes = false;
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
    if (after_prompt && row.role == Role::kPrompt) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "rows: row %d: expected prompt rows before response rows, found a prompt row", i));
    }
    after_prompt |= row.role != Role::kPrompt;
    votes |= row.role == Role::kResponse;
    if (i > 0 && row.role == Role::kPrompt && rows[i - 1].position >= row.position) {
      return absl::InvalidArgumentError(
          absl::StrFormat("rows: row %d: expected prompt positions to ascend, found %d after %d", i,
                          row.position, rows[i - 1].position));
    }
  }
  if (!votes) {
    return absl::InvalidArgumentError(
        "rows: expected at least one response row that votes, found none");
  }
  std::vector<std::int32_t> positions;
  positions.reserve(rows.size());
  for (const Row& row : rows) positions.push_back(row.position);
  std::ranges::sort(positions);
  if (const auto twice = std::ranges::adjacent_find(positions); twice != positions.end()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("rows: expected every position once, found %d twice", *twice));
  }
  return absl::OkStatus();
}

}  // namespace maskkv::engine
