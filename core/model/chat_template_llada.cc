// SPDX-License-Identifier: Apache-2.0
//
// LLaDA's template, after Llama 3: the bos token once, then for each message
//
//   <|start_header_id|> ROLE <|end_header_id|> "\n\n" TEXT <|eot_id|>
//
// with white space stripped from both ends of TEXT, then an assistant's header and "\n\n".
#include "core/base/status_macros.h"
#include "core/model/chat_format.h"

namespace maskkv::model {
namespace {

// The published source in the canonical form that CanonicalJinja makes; the last part differs.
constexpr std::string_view kMessages =
    "{%setloop_messages=messages%}{%formessageinloop_messages%}"
    "{%setcontent='<|start_header_id|>'+message['role']+'<|end_header_id|>\n\n'"
    "+message['content']|trim+'<|eot_id|>'%}"
    "{%ifloop.index0==0%}{%setcontent=bos_token+content%}{%endif%}{{content}}{%endfor%}";
constexpr std::string_view kPrompt = "{{'<|start_header_id|>assistant<|end_header_id|>\n\n'}}";
constexpr std::string_view kIfPrompt = "{%ifadd_generation_prompt%}";
constexpr std::string_view kEndIf = "{%endif%}";

// bos_token: a text, or an object with the text as its content.
absl::StatusOr<std::string> ReadBos(const JsonField& root) {
  MASKKV_ASSIGN_OR_RETURN(JsonField field, root.Get("bos_token"));
  if (field.is_object()) {
    MASKKV_ASSIGN_OR_RETURN(field, field.Get("content"));
  }
  MASKKV_ASSIGN_OR_RETURN(const std::string_view text, field.String());
  return std::string(text);
}

}  // namespace

absl::StatusOr<std::optional<ChatFormat>> LladaFormat(std::string_view canonical,
                                                      std::string_view where,
                                                      const JsonField& tokenizer_config,
                                                      const Tokenizer& tokenizer) {
  const std::string always = std::string(kMessages) + std::string(kPrompt);
  const std::string on_request =
      std::string(kMessages) + std::string(kIfPrompt) + std::string(kPrompt) + std::string(kEndIf);
  if (canonical != always && canonical != on_request) return std::nullopt;
  ChatFormat format;
  format.always_prompts = canonical == always;
  format.strips_text = true;
  MASKKV_ASSIGN_OR_RETURN(const std::string bos, ReadBos(tokenizer_config));
  MASKKV_ASSIGN_OR_RETURN(format.bos, SpecialId(tokenizer, where, bos));
  MASKKV_ASSIGN_OR_RETURN(format.start, SpecialId(tokenizer, where, "<|start_header_id|>"));
  MASKKV_ASSIGN_OR_RETURN(format.header_end, SpecialId(tokenizer, where, "<|end_header_id|>"));
  format.text_break = "\n\n";
  MASKKV_ASSIGN_OR_RETURN(format.end_of_turn, SpecialId(tokenizer, where, "<|eot_id|>"));
  return format;
}

}  // namespace maskkv::model
