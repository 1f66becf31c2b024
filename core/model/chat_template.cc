// SPDX-License-Identifier: Apache-2.0
#include "core/model/chat_template.h"

#include <filesystem>
#include <optional>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/base/file.h"
#include "core/base/status_macros.h"
#include "core/model/json_reader.h"
#include "core/model/utf8.h"

namespace maskkv::model {
namespace {

constexpr std::int64_t kMaxConfigBytes = 1 << 24;
constexpr std::string_view kAssistant = "assistant";
// Between a header and the text.
constexpr std::string_view kBreak = "\n\n";

// The published source in the canonical form that Canonical makes; the last part differs.
constexpr std::string_view kMessages =
    "{%setloop_messages=messages%}{%formessageinloop_messages%}"
    "{%setcontent='<|start_header_id|>'+message['role']+'<|end_header_id|>\n\n'"
    "+message['content']|trim+'<|eot_id|>'%}"
    "{%ifloop.index0==0%}{%setcontent=bos_token+content%}{%endif%}{{content}}{%endfor%}";
constexpr std::string_view kPrompt = "{{'<|start_header_id|>assistant<|end_header_id|>\n\n'}}";
constexpr std::string_view kIfPrompt = "{%ifadd_generation_prompt%}";
constexpr std::string_view kEndIf = "{%endif%}";

// Without spaces, which only separate words in these sources, and with "\n" of string literals as a
// line break: the two ways the sources are published differ in no more.
std::string Canonical(std::string_view source) {
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

// A token that the template needs.
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

// bos_token: a text, or an object with the text as its content.
absl::StatusOr<std::string> ReadBos(const JsonField& root) {
  MASKKV_ASSIGN_OR_RETURN(const JsonField field, root.Get("bos_token"));
  if (field.is_object()) {
    MASKKV_ASSIGN_OR_RETURN(const JsonField content, field.Get("content"));
    MASKKV_ASSIGN_OR_RETURN(const std::string_view text, content.String());
    return std::string(text);
  }
  MASKKV_ASSIGN_OR_RETURN(const std::string_view text, field.String());
  return std::string(text);
}

}  // namespace

absl::StatusOr<ChatTemplate> ChatTemplate::Load(const std::string& directory,
                                                const Tokenizer& tokenizer) {
  const std::string path = directory + "/tokenizer_config.json";
  MASKKV_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxConfigBytes));
  const std::string jinja_path = directory + "/chat_template.jinja";
  std::error_code ignored;
  if (!std::filesystem::exists(jinja_path, ignored)) return Parse(text, path, tokenizer);
  MASKKV_ASSIGN_OR_RETURN(const std::string source, ReadFile(jinja_path, kMaxConfigBytes));
  MASKKV_ASSIGN_OR_RETURN(const JsonDocument document, JsonDocument::Parse(text, path));
  MASKKV_ASSIGN_OR_RETURN(const std::string bos, ReadBos(document.root()));
  return Make(source, jinja_path, bos, tokenizer);
}

absl::StatusOr<ChatTemplate> ChatTemplate::Parse(std::string_view json, std::string_view file,
                                                 const Tokenizer& tokenizer) {
  MASKKV_ASSIGN_OR_RETURN(const JsonDocument document, JsonDocument::Parse(json, file));
  MASKKV_ASSIGN_OR_RETURN(const std::string bos, ReadBos(document.root()));
  MASKKV_ASSIGN_OR_RETURN(const JsonField field, document.root().Get("chat_template"));
  MASKKV_ASSIGN_OR_RETURN(const std::string_view source, field.String());
  return Make(source, std::string(file) + ": field chat_template", bos, tokenizer);
}

absl::StatusOr<ChatTemplate> ChatTemplate::Make(std::string_view source, std::string_view where,
                                                std::string_view bos, const Tokenizer& tokenizer) {
  const std::string canonical = Canonical(source);
  const std::string always = std::string(kMessages) + std::string(kPrompt);
  const std::string on_request = absl::StrCat(std::string(kMessages), std::string(kIfPrompt),
                                              std::string(kPrompt), std::string(kEndIf));
  if (canonical != always && canonical != on_request) {
    return absl::InvalidArgumentError(
        absl::StrCat(std::string(where), ": expected the chat template of LLaDA, found \"",
                     Printable(source), "\""));
  }
  ChatTemplate result(tokenizer);
  result.always_prompts_ = canonical == always;
  MASKKV_ASSIGN_OR_RETURN(result.bos_, SpecialId(tokenizer, where, bos));
  MASKKV_ASSIGN_OR_RETURN(result.start_header_, SpecialId(tokenizer, where, "<|start_header_id|>"));
  MASKKV_ASSIGN_OR_RETURN(result.end_header_, SpecialId(tokenizer, where, "<|end_header_id|>"));
  MASKKV_ASSIGN_OR_RETURN(result.end_of_turn_, SpecialId(tokenizer, where, "<|eot_id|>"));
  return result;
}

absl::Status ChatTemplate::AppendHeader(std::string_view role,
                                        std::vector<std::int32_t>& ids) const {
  MASKKV_ASSIGN_OR_RETURN(const std::vector<std::int32_t> name,
                          tokenizer_->Encode(role, SpecialText::kPlain));
  ids.push_back(start_header_);
  ids.insert(ids.end(), name.begin(), name.end());
  ids.push_back(end_header_);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::int32_t>> ChatTemplate::Render(std::span<const Message> messages,
                                                               bool add_generation_prompt) const {
  if (messages.empty()) {
    return absl::InvalidArgumentError("messages: expected at least one, found none");
  }
  std::vector<std::int32_t> ids = {bos_};
  // The break and the text are encoded in one go, as the rendered string would be: a token may span
  // both.
  const auto append_text = [&](const std::string& text) -> absl::Status {
    MASKKV_ASSIGN_OR_RETURN(const std::vector<std::int32_t> tokens,
                            tokenizer_->Encode(text, SpecialText::kPlain));
    ids.insert(ids.end(), tokens.begin(), tokens.end());
    return absl::OkStatus();
  };
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const auto& [role, content] = messages[i];
    if (role != "system" && role != "user" && role != kAssistant) {
      return absl::InvalidArgumentError(
          absl::StrCat("messages[", i, "].role: expected system, user or assistant, found \"",
                       Printable(role), "\""));
    }
    if (const auto offset = FindInvalidUtf8(content)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "messages[", i, "].content: expected UTF-8, found an invalid byte at offset ", *offset));
    }
    MASKKV_RETURN_IF_ERROR(AppendHeader(role, ids));
    MASKKV_RETURN_IF_ERROR(
        append_text(std::string(kBreak) + std::string(StripWhiteSpace(content))));
    ids.push_back(end_of_turn_);
  }
  if (add_generation_prompt || always_prompts_) {
    MASKKV_RETURN_IF_ERROR(AppendHeader(kAssistant, ids));
    MASKKV_RETURN_IF_ERROR(append_text(std::string(kBreak)));
  }
  return ids;
}

}  // namespace maskkv::model
