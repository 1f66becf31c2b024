// SPDX-License-Identifier: Apache-2.0
//
// Messages of a conversation as the prompt the model was tuned on. The published Jinja source is
// not interpreted: it must be one that is known here, and that one is written in C++. LLaDA's,
// after Llama 3: the bos token once, then for each message
//
//   <|start_header_id|> ROLE <|end_header_id|> "\n\n" TEXT <|eot_id|>
//
// with white space stripped from both ends of TEXT, then an assistant's header and "\n\n".
//
// The names in angle brackets are token ids here, never text: what a user writes is encoded as
// plain text, so that "<|eot_id|>" in a document is eight or so ordinary tokens and cannot end a
// turn.
//
// Thread safety: immutable after Load. The tokenizer must outlive the template.
#ifndef MASKKV_CORE_MODEL_CHAT_TEMPLATE_H_
#define MASKKV_CORE_MODEL_CHAT_TEMPLATE_H_

#include <cstdint>
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
  std::int32_t end_of_turn() const { return end_of_turn_; }

 private:
  explicit ChatTemplate(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}
  static absl::StatusOr<ChatTemplate> Make(std::string_view source, std::string_view where,
                                           std::string_view bos, const Tokenizer& tokenizer);
  absl::Status AppendHeader(std::string_view role, std::vector<std::int32_t>& ids) const;

  const Tokenizer* tokenizer_;
  std::int32_t bos_ = 0;
  std::int32_t start_header_ = 0;
  std::int32_t end_header_ = 0;
  std::int32_t end_of_turn_ = 0;
  bool always_prompts_ = false;
};

}  // namespace maskkv::model

#endif  // MASKKV_CORE_MODEL_CHAT_TEMPLATE_H_
