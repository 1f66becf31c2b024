// SPDX-License-Identifier: Apache-2.0
//
// The tokenizer of a checkpoint: byte-level BPE read from tokenizer.json. Encoding equals that of
// the `tokenizers` package (add_special_tokens=False) token for token, decoding its text byte for
// byte. What the file asks for and is not implemented is refused when it is loaded, naming the
// field.
//
// Encoding: added tokens are cut out, the rest is normalised (nothing or NFC), cut into pieces
// (pre_tokenizer.h), and each piece is merged (bpe.h). No token is ever added.
//
// Ownership: a Tokenizer owns its tables, moving it is cheap. Thread safety: immutable after Load.
#ifndef MASKKV_CORE_MODEL_TOKENIZER_H_
#define MASKKV_CORE_MODEL_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace maskkv::model {

struct TokenizerTables;

// What the text of a special token, as "<|eot_id|>", means in a text that is encoded.
enum class SpecialText : std::uint8_t {
  kPlain,  // ordinary characters: for everything that a user wrote
  kParse   // the special token: for texts of our own
};

class Tokenizer {
 public:
  static constexpr std::size_t kMaxTextBytes = std::size_t{1} << 28;

  // Reads `directory`/tokenizer.json. Errors: NOT_FOUND, INVALID_ARGUMENT naming the field.
  static absl::StatusOr<Tokenizer> Load(const std::string& directory);
  // Reads the text of a tokenizer.json; `file` is only for messages.
  static absl::StatusOr<Tokenizer> Parse(std::string_view json, std::string_view file);

  // The tokens of a text. An added token that is not special counts as its token in both modes.
  // Errors: INVALID_ARGUMENT naming the byte offset if `text` is not valid UTF-8, or if it is
  // larger than kMaxTextBytes; RESOURCE_EXHAUSTED if the pattern of the pre-tokeniser cannot cope
  // with it.
  absl::StatusOr<std::vector<std::int32_t>> Encode(std::string_view text,
                                                   SpecialText special) const;

  // The text of tokens. Bytes that are no UTF-8 become U+FFFD; ids without a token (there are rows
  // of the vocabulary without one) become nothing; so do special tokens if skip_special is true.
  std::string Decode(std::span<const std::int32_t> ids, bool skip_special) const;

  // The bytes of one token, which need not be UTF-8; empty for an id without a token. The view
  // lives as long as the tokenizer's tables (moving the tokenizer keeps them).
  std::string_view TokenBytes(std::int32_t id) const;

  // The id of a token as tokenizer.json writes it (a space as U+0120; special tokens as they are).
  std::optional<std::int32_t> TokenId(std::string_view token) const;
  bool IsSpecial(std::int32_t id) const;
  // One more than the largest id.
  std::int32_t vocab_size() const;

 private:
  explicit Tokenizer(std::shared_ptr<const TokenizerTables> tables);
  std::shared_ptr<const TokenizerTables> tables_;
};

// Decodes tokens as they come: what it returned so far is always whole characters, and all of it
// together is Tokenizer::Decode of all the tokens. Not thread safe. The tokenizer must outlive it.
class StreamingDecoder {
 public:
  StreamingDecoder(const Tokenizer& tokenizer, bool skip_special)
      : tokenizer_(tokenizer), skip_special_(skip_special) {}

  // The text that this token completes, often empty for a part of a character.
  std::string Push(std::int32_t id);
  // The end: U+FFFD if a character is incomplete. The decoder is as new afterwards.
  std::string Finish();
  // Whether a character has begun that later tokens may complete.
  bool incomplete() const { return !pending_.empty(); }

 private:
  const Tokenizer& tokenizer_;
  const bool skip_special_;
  std::string pending_;  // the beginning of a character, at most 3 bytes
};

}  // namespace maskkv::model

#endif  // MASKKV_CORE_MODEL_TOKENIZER_H_
