// SPDX-License-Identifier: Apache-2.0
//
// Messages of a conversation as the prompt the model was tuned on. The published Jinja source is
// not interpreted: it must be one that is known here, and that one is written in C++
// (chat_template_llada.cc, chat_template_chatml.cc).
//
// The names in angle brackets are token ids here, never text: what a user writes is encoded as
// plain text, so that "<|eot_id|>" in a document is eight or so ordinary tokens and cannot end a
// turn.
//
// Thread safety: immutable after Load. The tokenizer must outlive the template.
#ifndef MASKKV_CORE_MODEL_CHAT_TEMPLATE_H_
#define MASKKV_CORE_MODEL_CHAT_TEMPLATE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/model/tokenizer.h"

namespace maskkv::model {

struct Message {
  std::string role;     // "system", "user" or "assistant"
  std::string content;  // UTF-8
};

struct ChatFormat;

class ChatTemplate {
 public:
  // Reads `directory`/tokenizer_config.json and, if there is one, chat_template.jinja, which then
  // counts instead of the field of that name.
  // Errors: NOT_FOUND; INVALID_ARGUMENT naming file and field if the template is not one that is
  // known, if the tokenizer lacks one of its tokens or does not mark it as special.
  static absl::StatusOr<ChatTemplate> Load(const std::string& directory,
                                           const Tokenizer& tokenizer);
  // The same from the text of a tokenizer_config.json; `file` is only for messages.
  static absl::StatusOr<ChatTemplate> Parse(std::string_view json, std::string_view file,
                                            const Tokenizer& tokenizer);

  // The prompt as tokens. add_generation_prompt: end with an assistant's header, for the model to
  // answer (some published templates always do, and so does this then).
  // Errors: INVALID_ARGUMENT for no messages, another role, content that is not UTF-8.
  absl::StatusOr<std::vector<std::int32_t>> Render(std::span<const Message> messages,
                                                   bool add_generation_prompt) const;

  // The token that ends a message.
  std::int32_t end_of_turn() const;

 private:
  ChatTemplate(const Tokenizer& tokenizer, ChatFormat format);

  const Tokenizer* tokenizer_;
  std::shared_ptr<const ChatFormat> format_;
};

}  // namespace maskkv::model

#endif  // MASKKV_CORE_MODEL_CHAT_TEMPLATE_H_
