// SPDX-License-Identifier: Apache-2.0
//
// The alphabet of byte-level BPE: tokenizer.json writes each of the 256 bytes as one printable
// character. Printable bytes of Latin-1 stand for themselves, the other 68 are U+0100, U+0101, ...
// in ascending order (so a space is written as U+0120). From GPT-2's encoder. Pure and thread safe.
#ifndef MASKKV_CORE_MODEL_BYTE_SYMBOLS_H_
#define MASKKV_CORE_MODEL_BYTE_SYMBOLS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace maskkv::model {

// The character that stands for a byte, in UTF-8.
std::string ByteSymbol(std::uint8_t byte);

// The bytes that a text in the alphabet stands for; nothing if a character is not of the alphabet.
std::optional<std::string> BytesOfSymbols(std::string_view text);

}  // namespace maskkv::model

#endif  // MASKKV_CORE_MODEL_BYTE_SYMBOLS_H_
