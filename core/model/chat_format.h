// SPDX-License-Identifier: Apache-2.0
//
// What a family's chat template puts around messages, as data that one renderer reads, and the
// families that are known: each compares a published Jinja source with its own and says what it
// means. Internal to core/model.
#ifndef MASKKV_CORE_MODEL_CHAT_FORMAT_H_
#define MASKKV_CORE_MODEL_CHAT_FORMAT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "core/model/json_reader.h"
#include "core/model/tokenizer.h"

namespace maskkv::model {

// bos, then for each message: start ROLE [header_end] text_break TEXT end_of_turn after_turn.
struct ChatFormat {
  std::optional<std::int32_t> bos;  // once, before everything
  std::string default_system;       // a first message where the first is no system's; empty: none
  std::int32_t start = 0;
  std::optional<std::int32_t> header_end;
  std::string text_break;
  bool strips_text = false;  // white space at both ends of TEXT
  std::int32_t end_of_turn = 0;
  std::string after_turn;
  bool always_prompts = false;  // ends with an assistant's header whether or not asked to
};

// A Jinja source without spaces, which only separate words in these sources, without white space
// at its end, and with "\n" of string literals as a line break: the ways the sources are published
// differ in no more.
std::string CanonicalJinja(std::string_view source);

// A token that the template needs.
// Errors: INVALID_ARGUMENT at `where` if there is none or it is not special.
absl::StatusOr<std::int32_t> SpecialId(const Tokenizer& tokenizer, std::string_view where,
                                       std::string_view token);

// The format if `canonical` is the family's source, else nothing. tokenizer_config: the object of
// tokenizer_config.json. Errors: INVALID_ARGUMENT for what the format needs and is not there.
absl::StatusOr<std::optional<ChatFormat>> LladaFormat(std::string_view canonical,
                                                      std::string_view where,
                                                      const JsonField& tokenizer_config,
                                                      const Tokenizer& tokenizer);
absl::StatusOr<std::optional<ChatFormat>> ChatMlFormat(std::string_view canonical,
                                                       std::string_view where,
                                                       const Tokenizer& tokenizer);

}  // namespace maskkv::model

#endif  // MASKKV_CORE_MODEL_CHAT_FORMAT_H_
