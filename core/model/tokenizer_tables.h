// SPDX-License-Identifier: Apache-2.0
//
// What a tokenizer.json says, checked and made ready: the tables behind Tokenizer. Immutable once
// made. Internal to this folder.
#ifndef MASKKV_CORE_MODEL_TOKENIZER_TABLES_H_
#define MASKKV_CORE_MODEL_TOKENIZER_TABLES_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "core/model/added_tokens.h"
#include "core/model/bpe.h"
#include "core/model/pre_tokenizer.h"

namespace maskkv::model {

struct TokenizerTables {
  struct Token {
    std::string bytes;  // what it decodes to
    bool exists = false;
    bool special = false;
  };

  std::vector<Token> tokens;                          // by id
  std::unordered_map<std::string, std::int32_t> ids;  // by the text in the file
  AddedTokens raw_added;                              // found in the text as it is
  AddedTokens normalized_added;                       // found in the normalised text
  bool normalize_nfc = false;
  PreTokenizer pre_tokenizer;
  BytePairEncoder encoder;
};

// Errors: INVALID_ARGUMENT "FILE: field F: expected ..., found ...".
absl::StatusOr<std::shared_ptr<const TokenizerTables>> ParseTokenizerJson(std::string_view json,
                                                                          std::string_view file);

}  // namespace maskkv::model

#endif  // MASKKV_CORE_MODEL_TOKENIZER_TABLES_H_
