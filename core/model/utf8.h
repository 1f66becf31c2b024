// SPDX-License-Identifier: Apache-2.0
//
// UTF-8 as text arrives and leaves: user text must be valid, the bytes that tokens decode to need
// not be. Well-formedness is that of the Unicode Standard, table 3-7: no surrogates, no overlong
// forms, nothing above U+10FFFF. All functions are pure and thread safe.
#ifndef MASKKV_CORE_MODEL_UTF8_H_
#define MASKKV_CORE_MODEL_UTF8_H_

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace maskkv::model {

inline constexpr std::string_view kReplacement = "\xef\xbf\xbd";  // U+FFFD

// How the first bytes of a text read.
struct Utf8Sequence {
  enum class Kind {
    kCharacter,   // one whole character
    kIncomplete,  // the whole text is the beginning of a character
    // Bytes that begin no character: the longest prefix that could have begun one ("maximal
    // subpart", Unicode Standard, section 3.9), at least one byte.
    kInvalid
  };
  Kind kind;
  std::size_t length;
};

// REQUIRES: text is not empty.
Utf8Sequence ReadUtf8(std::string_view text);

// The byte offset of the first thing that is not a whole character, nothing for valid UTF-8.
std::optional<std::size_t> FindInvalidUtf8(std::string_view text);

// Appends `text` to `out` with each invalid sequence replaced by U+FFFD. Stops before an incomplete
// character at the end of `text`, if `at_end` is false; else that is replaced too.
// Returns: the number of bytes of `text` consumed.
std::size_t AppendAsUtf8(std::string_view text, bool at_end, std::string& out);

// `text` without white space at both ends: what str.strip() of Python and so `trim` of the chat
// templates removes. REQUIRES: valid UTF-8.
std::string_view StripWhiteSpace(std::string_view text);

}  // namespace maskkv::model

#endif  // MASKKV_CORE_MODEL_UTF8_H_
