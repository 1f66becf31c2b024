// SPDX-License-Identifier: Apache-2.0
//
// A regular expression of a pre-tokeniser, run by ICU so that it finds what the `tokenizers`
// package finds with Oniguruma. The two agree on the syntax that published byte-level tokenizers
// use (classes, \s \p{L} \p{N}, greedy and possessive repetition, look-ahead, (?i:...)) and on
// white space; they differ in the version of Unicode, so \p{L} and \p{N} are widened by the letters
// and numbers that Unicode 15.1 and 16.0 added.
//
// Thread safety: immutable after Compile; one object serves many threads.
#ifndef MASKKV_CORE_MODEL_REGEX_PATTERN_H_
#define MASKKV_CORE_MODEL_REGEX_PATTERN_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/base/function_ref.h"

namespace maskkv::model {

// A range of UTF-16 code units.
struct TextRange {
  std::int32_t begin = 0;
  std::int32_t end = 0;
};

class RegexPattern {
 public:
  // `pattern` is UTF-8. Errors: INVALID_ARGUMENT with ICU's reason and the offset in the pattern.
  static absl::StatusOr<RegexPattern> Compile(std::string_view pattern);

  // Calls visit(range, matches) for each of `ranges` of `text` in order: its matches are ascending,
  // disjoint, not empty. Nothing outside the range is seen, by look-ahead neither.
  // Errors: RESOURCE_EXHAUSTED if a match needs more than ICU's limits of stack or time.
  absl::Status FindAll(
      std::u16string_view text, std::span<const TextRange> ranges,
      kernels::FunctionRef<void(TextRange, std::span<const TextRange>)> visit) const;

 private:
  struct Compiled;
  explicit RegexPattern(std::shared_ptr<const Compiled> compiled);
  std::shared_ptr<const Compiled> compiled_;
};

}  // namespace maskkv::model

#endif  // MASKKV_CORE_MODEL_REGEX_PATTERN_H_
