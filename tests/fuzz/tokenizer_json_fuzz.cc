// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as a tokenizer.json: an error of one line, or a tokenizer that encodes and decodes.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/base/check.h"
#include "core/model/tokenizer.h"
#include "core/model/utf8.h"
#include "tests/fuzz/message_check.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace maskkv;
  const std::string_view json(reinterpret_cast<const char*>(data), size);
  const auto tokenizer = model::Tokenizer::Parse(json, "tokenizer.json");
  if (!tokenizer.ok()) {
    CheckMessage(tokenizer.status(), "tokenizer.json");
    return 0;
  }
  constexpr std::string_view kText = "The <|eot_id|> 12\xc2\xa0 don't \xe6\xbc\xa2 aaab\r\n";
  for (const auto special : {model::SpecialText::kPlain, model::SpecialText::kParse}) {
    const auto ids = tokenizer->Encode(kText, special);
    if (!ids.ok()) {  // a pattern that does not end
      MASKKV_CHECK(absl::IsResourceExhausted(ids.status()), "valid text is encoded");
      continue;
    }
    for (const std::int32_t id : *ids) {
      MASKKV_CHECK(id >= 0 && id < tokenizer->vocab_size(), "ids are of the vocabulary");
    }
    const std::string text = tokenizer->Decode(*ids, /*skip_special=*/false);
    MASKKV_CHECK(!model::FindInvalidUtf8(text), "decoded text is UTF-8");
  }
  return 0;
}
