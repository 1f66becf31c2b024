// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as a tokenizer_config.json, and as what a user says: an error of one line, or a prompt
// with exactly the special tokens that the template writes.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/check.h"
#include "core/model/chat_template.h"
#include "core/model/utf8.h"
#include "tests/fuzz/message_check.h"

namespace {

using maskkv::model::ChatTemplate;
using maskkv::model::Tokenizer;

constexpr char kFolder[] = MASKKV_SOURCE_DIR "/models/tiny-llada";

const Tokenizer& GetTokenizer() {
  static const auto tokenizer = Tokenizer::Load(kFolder);
  MASKKV_CHECK(tokenizer.ok(), "the embedded tokenizer loads");
  return *tokenizer;
}

void CheckPrompt(const ChatTemplate& chat, const std::string& content) {
  const std::vector<maskkv::model::Message> messages = {{"user", content}, {"assistant", "x"}};
  const auto ids = chat.Render(messages, /*add_generation_prompt=*/true);
  MASKKV_CHECK(ids.ok() == !maskkv::model::FindInvalidUtf8(content).has_value(), "UTF-8 alone");
  if (!ids.ok()) return;
  const auto special =
      std::ranges::count_if(*ids, [](std::int32_t id) { return GetTokenizer().IsSpecial(id); });
  MASKKV_CHECK(special == 1 + 3 * 2 + 2, "bos, three a message, two of the last header");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const auto known = ChatTemplate::Load(kFolder, GetTokenizer());
  MASKKV_CHECK(known.ok(), "the embedded chat template loads");
  const std::string text(reinterpret_cast<const char*>(data), size);
  CheckPrompt(*known, text);
  const auto chat = ChatTemplate::Parse(text, "tokenizer_config.json", GetTokenizer());
  if (chat.ok()) {
    CheckPrompt(*chat, text);
  } else {
    maskkv::CheckMessage(chat.status(), "tokenizer_config.json");
  }
  return 0;
}
