// SPDX-License-Identifier: Apache-2.0
//
// How a text is cut into the pieces that are encoded one by one: no token spans two pieces. Read
// from the `pre_tokenizer` of tokenizer.json, a chain of cuts each of which works on the pieces of
// the one before: Split by a regular expression (matches and what is between them, or only one of
// the two), Digits, and ByteLevel last, with or without GPT-2's own expression.
//
// Thread safety: immutable after Parse.
#ifndef MASKKV_CORE_MODEL_PRE_TOKENIZER_H_
#define MASKKV_CORE_MODEL_PRE_TOKENIZER_H_

#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/model/json_reader.h"
#include "core/model/regex_pattern.h"
#include "kernels/base/function_ref.h"

namespace maskkv::model {

class PreTokenizer {
 public:
  // Errors: INVALID_ARGUMENT naming the field for anything but the above: another type, prefix
  // spaces, other behaviours than Isolated and Removed, ByteLevel missing or not last.
  static absl::StatusOr<PreTokenizer> Parse(const JsonField& field);

  // Calls visit(piece) for every piece of `text` in order; pieces are parts of `text`, not empty.
  // REQUIRES: valid UTF-8 of at most 2^30 bytes.
  // Errors: RESOURCE_EXHAUSTED from the regular expression.
  absl::Status ForEachPiece(std::string_view text,
                            kernels::FunctionRef<void(std::string_view)> visit) const;

 private:
  // Which parts of a text a cut keeps as pieces.
  enum class Keep { kAll, kMatches, kRest };
  struct Cut {
    RegexPattern pattern;
    Keep keep;
  };

  absl::Status AddStep(const JsonField& step);
  absl::Status AddSplit(const JsonField& step);
  absl::Status AddDigits(const JsonField& step);
  absl::Status AddByteLevel(const JsonField& step);

  std::vector<Cut> cuts_;
  bool ends_in_bytes_ = false;
};

}  // namespace maskkv::model

#endif  // MASKKV_CORE_MODEL_PRE_TOKENIZER_H_
