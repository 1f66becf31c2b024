// SPDX-License-Identifier: Apache-2.0
#include "core/model/chat_template.h"

#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/base/file.h"
#include "core/base/status_macros.h"
#include "core/model/chat_format.h"
#include "core/model/json_reader.h"
#include "core/model/utf8.h"

namespace maskkv::model {
namespace {

constexpr std::int64_t kMaxTemplateBytes = 1 << 24;
constexpr std::string_view kSystem = "system";
constexpr std::string_view kUser = "user";
constexpr std::string_view kAssistant = "assistant";

// Errors: INVALID_ARGUMENT if no family knows the source.
absl::StatusOr<ChatFormat> FormatOf(std::string_view source, std::string_view where,
                                    const JsonField& tokenizer_config, const Tokenizer& tokenizer) {
  const std::string canonical = CanonicalJinja(source);
  MASKKV_ASSIGN_OR_RETURN(std::optional<ChatFormat> llada,
                          LladaFormat(canonical, where, tokenizer_config, tokenizer));
  if (llada) return *std::move(llada);
  MASKKV_ASSIGN_OR_RETURN(std::optional<ChatFormat> chatml,
                          ChatMlFormat(canonical, where, tokenizer));
  if (chatml) return *std::move(chatml);
  return absl::InvalidArgumentError(absl::StrCat(
      std::string(where), ": expected the chat template of LLaDA or of Dream, found \"",
      Printable(source), "\""));
}

absl::Status CheckMessages(std::span<const Message> messages) {
  if (messages.empty()) {
    return absl::InvalidArgumentError("messages: expected at least one, found none");
  }
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const auto& [role, content] = messages[i];
    if (role != kSystem && role != kUser && role != kAssistant) {
      return absl::InvalidArgumentError(
          absl::StrCat("messages[", i, "].role: expected system, user or assistant, found \"",
                       Printable(role), "\""));
    }
    if (const auto offset = FindInvalidUtf8(content)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "messages[", i, "].content: expected UTF-8, found an invalid byte at offset ", *offset));
    }
  }
  return absl::OkStatus();
}

// Writes what a format says, as tokens.
class Renderer {
 public:
  Renderer(const ChatFormat& format, const Tokenizer& tokenizer)
      : format_(format), tokenizer_(tokenizer) {
    if (format.bos) ids_.push_back(*format.bos);
  }

  // A header and a text, without an end. What stands between two special tokens is encoded in one
  // go, as the rendered string would be: a token may span the break and the text.
  absl::Status Open(std::string_view role, std::string_view content) {
    ids_.push_back(format_.start);
    std::string text(role);
    if (format_.header_end) {
      MASKKV_RETURN_IF_ERROR(Append(text));
      ids_.push_back(*format_.header_end);
      text.clear();
    }
    text += format_.text_break;
    text += format_.strips_text ? StripWhiteSpace(content) : content;
    return Append(text);
  }

  absl::Status Turn(std::string_view role, std::string_view content) {
    MASKKV_RETURN_IF_ERROR(Open(role, content));
    ids_.push_back(format_.end_of_turn);
    return Append(format_.after_turn);
  }

  std::vector<std::int32_t> Take() && { return std::move(ids_); }

 private:
  absl::Status Append(const std::string& text) {
    MASKKV_ASSIGN_OR_RETURN(const std::vector<std::int32_t> tokens,
                            tokenizer_.Encode(text, SpecialText::kPlain));
    ids_.insert(ids_.end(), tokens.begin(), tokens.end());
    return absl::OkStatus();
  }

  const ChatFormat& format_;
  const Tokenizer& tokenizer_;
  std::vector<std::int32_t> ids_;
};

}  // namespace

std::string CanonicalJinja(std::string_view source) {
  while (source.ends_with('\n')) source.remove_suffix(1);
  std::string out;
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] == ' ') continue;
    if (source.substr(i, 2) == "\\n") {
      out += '\n';
      ++i;
    } else {
      out += source[i];
    }
  }
  return out;
}

absl::StatusOr<std::int32_t> SpecialId(const Tokenizer& tokenizer, std::string_view where,
                                       std::string_view token) {
  const std::optional<std::int32_t> id = tokenizer.TokenId(token);
  if (!id || !tokenizer.IsSpecial(*id)) {
    return absl::InvalidArgumentError(
        absl::StrCat(std::string(where), ": expected a special token \"", Printable(token),
                     "\" in the tokenizer, found ", id ? "one that is not special" : "none"));
  }
  return *id;
}

ChatTemplate::ChatTemplate(const Tokenizer& tokenizer, ChatFormat format)
    : tokenizer_(&tokenizer), format_(std::make_shared<const ChatFormat>(std::move(format))) {}

absl::StatusOr<ChatTemplate> ChatTemplate::Load(const std::string& directory,
                                                const Tokenizer& tokenizer) {
  const std::string path = directory + "/tokenizer_config.json";
  MASKKV_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxTemplateBytes));
  const std::string jinja_path = directory + "/chat_template.jinja";
  std::error_code ignored;
  if (!std::filesystem::exists(jinja_path, ignored)) return Parse(text, path, tokenizer);
  MASKKV_ASSIGN_OR_RETURN(const std::string source, ReadFile(jinja_path, kMaxTemplateBytes));
  MASKKV_ASSIGN_OR_RETURN(const JsonDocument document, JsonDocument::Parse(text, path));
  MASKKV_ASSIGN_OR_RETURN(ChatFormat format,
                          FormatOf(source, jinja_path, document.root(), tokenizer));
  return ChatTemplate(tokenizer, std::move(format));
}

absl::StatusOr<ChatTemplate> ChatTemplate::Parse(std::string_view json, std::string_view file,
                                                 const Tokenizer& tokenizer) {
  MASKKV_ASSIGN_OR_RETURN(const JsonDocument document, JsonDocument::Parse(json, file));
  MASKKV_ASSIGN_OR_RETURN(const JsonField field, document.root().Get("chat_template"));
  MASKKV_ASSIGN_OR_RETURN(const std::string_view source, field.String());
  MASKKV_ASSIGN_OR_RETURN(
      ChatFormat format,
      FormatOf(source, std::string(file) + ": field chat_template", document.root(), tokenizer));
  return ChatTemplate(tokenizer, std::move(format));
}

std::int32_t ChatTemplate::end_of_turn() const { return format_->end_of_turn; }

absl::StatusOr<std::vector<std::int32_t>> ChatTemplate::Render(std::span<const Message> messages,
                                                               bool add_generation_prompt) const {
  MASKKV_RETURN_IF_ERROR(CheckMessages(messages));
  Renderer renderer(*format_, *tokenizer_);
  if (!format_->default_system.empty() && messages.front().role != kSystem) {
    MASKKV_RETURN_IF_ERROR(renderer.Turn(kSystem, format_->default_system));
  }
  for (const Message& message : messages) {
    MASKKV_RETURN_IF_ERROR(renderer.Turn(message.role, message.content));
  }
  if (add_generation_prompt || format_->always_prompts) {
    MASKKV_RETURN_IF_ERROR(renderer.Open(kAssistant, ""));
  }
  return std::move(renderer).Take();
}

}  // namespace maskkv::model
