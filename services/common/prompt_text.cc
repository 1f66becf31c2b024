// SPDX-License-Identifier: Apache-2.0
#include "services/common/prompt_text.h"

#include <optional>

#include "absl/strings/str_format.h"
#include "core/base/error.h"
#include "core/model/utf8.h"

namespace maskkv::services {
namespace {

// What ends a turn in the chat template that the family is tuned on.
std::string_view EndOfTurn(model::ModelFamily family) {
  switch (family) {
    case model::ModelFamily::kLlada:
      return "<|eot_id|>";
    case model::ModelFamily::kDream:
      return "<|im_end|>";
    case model::ModelFamily::kLladaMoe:
      return "<|role_end|>";
  }
  return "";
}

}  // namespace

std::string DocumentAndQuestion(std::string_view document, std::string_view question) {
  std::string text(document);
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
  if (!question.empty()) text.append(text.empty() ? "" : "\n\n").append(question);
  return text;
}

std::vector<std::int32_t> StopIds(const model::ModelConfig& config,
                                  const model::Tokenizer* tokenizer) {
  std::vector<std::int32_t> ids{config.eos_id};
  if (tokenizer != nullptr) {
    const std::optional<std::int32_t> end_of_turn = tokenizer->TokenId(EndOfTurn(config.family));
    if (end_of_turn && *end_of_turn != ids.front()) ids.push_back(*end_of_turn);
  }
  return ids;
}

absl::Status CheckUtf8(std::string_view name, std::string_view text) {
  const std::optional<std::size_t> offset = model::FindInvalidUtf8(text);
  if (!offset) return absl::OkStatus();
  return MakeError(absl::StatusCode::kInvalidArgument, "BAD_UTF8",
                   absl::StrFormat("%s: expected UTF-8, found byte 0x%02x at offset %d", name,
                                   static_cast<unsigned char>(text[*offset]), *offset));
}

}  // namespace maskkv::services
