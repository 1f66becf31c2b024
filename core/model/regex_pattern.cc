// SPDX-License-Identifier: Apache-2.0
#include "core/model/regex_pattern.h"

#include <unicode/regex.h>
#include <unicode/unistr.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace maskkv::model {
namespace {

constexpr std::int32_t kStackBytes = 64 << 20;  // backtracking of one match
constexpr std::size_t kMaxPatternBytes = 1 << 16;
// ICU counts steps of 10,000 backtracking positions. Published patterns need a few positions a
// character; a pattern that needs far more than 100 would not end.
constexpr std::int32_t kBaseSteps = 1000;
constexpr std::int32_t kCharactersPerStep = 64;

// Assigned after Unicode 15.0, the version of ICU 72: general categories L* and N*. With a newer
// ICU they are members already and the union changes nothing.
constexpr std::string_view kLaterLetters =
    R"(\x{1c89}-\x{1c8a}\x{a7cb}-\x{a7cd}\x{a7da}-\x{a7dc}\x{105c0}-\x{105f3}\x{10d4a}-\x{10d65})"
    R"(\x{10d6f}-\x{10d85}\x{10ec2}-\x{10ec4}\x{11380}-\x{11389}\x{1138b}\x{1138e})"
    R"(\x{11390}-\x{113b5}\x{113b7}\x{113d1}\x{113d3}\x{11bc0}-\x{11be0}\x{13460}-\x{143fa})"
    R"(\x{16100}-\x{1611d}\x{16d40}-\x{16d6c}\x{18cff}\x{1e5d0}-\x{1e5ed}\x{1e5f0})"
    R"(\x{2ebf0}-\x{2ee5d})";
constexpr std::string_view kLaterNumbers =
    R"(\x{10d40}-\x{10d49}\x{116d0}-\x{116e3}\x{11bf0}-\x{11bf9}\x{16130}-\x{16139})"
    R"(\x{16d70}-\x{16d79}\x{1ccf0}-\x{1ccf9}\x{1e5f1}-\x{1e5fa})";

// The pattern with \p{L} and \p{N} as sets of their own, which may stand inside a set too.
std::string Widen(std::string_view pattern) {
  std::string wide;
  for (std::size_t at = 0; at < pattern.size();) {
    const std::string_view rest = pattern.substr(at);
    if (rest.starts_with("\\p{L}")) {
      wide.append("[\\p{L}").append(kLaterLetters).append("]");
      at += 5;
    } else if (rest.starts_with("\\p{N}")) {
      wide.append("[\\p{N}").append(kLaterNumbers).append("]");
      at += 5;
    } else {
      const std::size_t length = rest.front() == '\\' && rest.size() > 1 ? 2 : 1;
      wide.append(rest.substr(0, length));
      at += length;
    }
  }
  return wide;
}

constexpr UBool kNotTerminated = 0;

bool Failed(UErrorCode error) { return error > U_ZERO_ERROR; }

icu::UnicodeString FromUtf8(std::string_view text) {
  return icu::UnicodeString::fromUTF8(
      icu::StringPiece(text.data(), static_cast<std::int32_t>(text.size())));
}

}  // namespace

struct RegexPattern::Compiled {
  std::unique_ptr<icu::RegexPattern> pattern;
};

RegexPattern::RegexPattern(std::shared_ptr<const Compiled> compiled)
    : compiled_(std::move(compiled)) {}

absl::StatusOr<RegexPattern> RegexPattern::Compile(std::string_view pattern) {
  if (pattern.empty() || pattern.size() > kMaxPatternBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("a pattern of 1 to ", kMaxPatternBytes, " bytes"));
  }
  UErrorCode error = U_ZERO_ERROR;
  UParseError where{};
  auto compiled = std::make_shared<Compiled>();
  compiled->pattern.reset(icu::RegexPattern::compile(FromUtf8(Widen(pattern)), 0, where, error));
  if (Failed(error) || compiled->pattern == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("a regular expression that ICU accepts (", u_errorName(error), ")"));
  }
  return RegexPattern(std::move(compiled));
}

absl::Status RegexPattern::FindAll(
    std::u16string_view text, std::span<const TextRange> ranges,
    kernels::FunctionRef<void(TextRange, std::span<const TextRange>)> visit) const {
  UErrorCode error = U_ZERO_ERROR;
  // Refers to the text without a copy.
  const icu::UnicodeString alias(kNotTerminated, text.data(),
                                 static_cast<std::int32_t>(text.size()));
  const std::unique_ptr<icu::RegexMatcher> matcher(compiled_->pattern->matcher(alias, error));
  if (matcher != nullptr) {
    matcher->setStackLimit(kStackBytes, error);
    matcher->setTimeLimit(kBaseSteps + alias.length() / kCharactersPerStep, error);
  }
  std::vector<TextRange> matches;
  for (const TextRange& range : ranges) {
    if (Failed(error)) break;
    matches.clear();
    matcher->region(range.begin, range.end, error);
    while (!Failed(error) && matcher->find(error) != 0) {
      const TextRange match = {matcher->start(error), matcher->end(error)};
      if (match.begin < match.end) matches.push_back(match);
    }
    if (!Failed(error)) visit(range, matches);
  }
  if (!Failed(error)) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "pre-tokeniser: expected a text within ICU's limits of matching, found one beyond (",
      u_errorName(error), ")"));
}

}  // namespace maskkv::model
