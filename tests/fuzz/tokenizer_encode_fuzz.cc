// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as a text for LLaDA's and Qwen2's way of cutting: refused if and only if it is not
// UTF-8, else tokens whose text it is again (under NFC, for Qwen2, some text), streamed or not.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

#include "core/base/check.h"
#include "core/model/tokenizer.h"
#include "core/model/utf8.h"

namespace {

maskkv::model::Tokenizer LoadGolden(const std::string& kind) {
  auto loaded = maskkv::model::Tokenizer::Load(MASKKV_SOURCE_DIR "/tests/data/tokenizer/" + kind);
  MASKKV_CHECK(loaded.ok(), "the golden tokenizer loads");
  return *std::move(loaded);
}

void CheckText(const maskkv::model::Tokenizer& tokenizer, std::string_view text, bool keeps_text) {
  using namespace maskkv::model;
  for (const SpecialText special : {SpecialText::kPlain, SpecialText::kParse}) {
    const auto ids = tokenizer.Encode(text, special);
    MASKKV_CHECK(ids.ok() == !FindInvalidUtf8(text).has_value(), "exactly UTF-8 is encoded");
    if (!ids.ok()) continue;
    StreamingDecoder decoder(tokenizer, /*skip_special=*/false);
    std::string streamed;
    for (const std::int32_t id : *ids) {
      const std::string part = decoder.Push(id);
      MASKKV_CHECK(!FindInvalidUtf8(part), "whole characters are streamed");
      streamed += part;
    }
    streamed += decoder.Finish();
    MASKKV_CHECK(streamed == tokenizer.Decode(*ids, false), "streaming changes nothing");
    MASKKV_CHECK(!keeps_text || streamed == text, "decoding undoes encoding");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const maskkv::model::Tokenizer llada = LoadGolden("llada");
  static const maskkv::model::Tokenizer qwen2 = LoadGolden("qwen2");
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  CheckText(llada, text, /*keeps_text=*/true);
  CheckText(qwen2, text, /*keeps_text=*/false);
  return 0;
}
