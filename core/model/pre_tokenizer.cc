// SPDX-License-Identifier: Apache-2.0
#include "core/model/pre_tokenizer.h"

#include <unicode/ustring.h>

#include <span>
#include <string>
#include <utility>

#include "core/base/check.h"
#include "core/base/status_macros.h"

namespace maskkv::model {
namespace {

// The expression that ByteLevel brings itself (GPT-2's encoder).
constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

absl::StatusOr<bool> BoolMember(const JsonField& object, std::string_view name) {
  MASKKV_ASSIGN_OR_RETURN(const JsonField field, object.Get(name));
  return field.Bool();
}

absl::StatusOr<RegexPattern> CompileField(const JsonField& field) {
  MASKKV_ASSIGN_OR_RETURN(const std::string_view pattern, field.String());
  absl::StatusOr<RegexPattern> compiled = RegexPattern::Compile(pattern);
  if (!compiled.ok()) return field.Expected(std::string(compiled.status().message()));
  return compiled;
}

// Valid UTF-8 as UTF-16.
std::u16string ToUtf16(std::string_view text) {
  std::u16string wide(text.size(), u'\0');  // never more units than bytes
  std::int32_t length = 0;
  UErrorCode error = U_ZERO_ERROR;
  u_strFromUTF8(wide.data(), static_cast<std::int32_t>(wide.size()), &length, text.data(),
                static_cast<std::int32_t>(text.size()), &error);
  MASKKV_CHECK(U_SUCCESS(error), "the text is valid UTF-8");
  wide.resize(static_cast<std::size_t>(length));
  return wide;
}

// Walks UTF-8 and UTF-16 of one text side by side.
class ByteCursor {
 public:
  explicit ByteCursor(std::string_view text) : text_(text) {}

  // The byte offset of a UTF-16 offset. REQUIRES: not before the last one asked for.
  std::size_t At(std::int32_t unit) {
    while (unit_ < unit) {
      const auto lead = static_cast<unsigned char>(text_[byte_]);
      byte_ += lead < 0x80 ? 1U : lead < 0xe0 ? 2U : lead < 0xf0 ? 3U : 4U;
      unit_ += lead < 0xf0 ? 1 : 2;
    }
    return byte_;
  }

 private:
  std::string_view text_;
  std::size_t byte_ = 0;
  std::int32_t unit_ = 0;
};

}  // namespace

absl::StatusOr<PreTokenizer> PreTokenizer::Parse(const JsonField& field) {
  PreTokenizer result;
  MASKKV_ASSIGN_OR_RETURN(const JsonField type, field.Get("type"));
  MASKKV_ASSIGN_OR_RETURN(const std::string_view name, type.String());
  if (name == "Sequence") {
    MASKKV_ASSIGN_OR_RETURN(const JsonField steps, field.Get("pretokenizers"));
    MASKKV_RETURN_IF_ERROR(
        steps.ForEachElement([&](const JsonField& step) { return result.AddStep(step); }));
  } else {
    MASKKV_RETURN_IF_ERROR(result.AddStep(field));
  }
  if (!result.ends_in_bytes_) return field.Expected("pre-tokenisers that end in a ByteLevel");
  return result;
}

absl::Status PreTokenizer::AddStep(const JsonField& step) {
  if (ends_in_bytes_) return step.Expected("nothing after ByteLevel");
  MASKKV_ASSIGN_OR_RETURN(const JsonField type, step.Get("type"));
  MASKKV_ASSIGN_OR_RETURN(const std::string_view name, type.String());
  if (name == "Split") return AddSplit(step);
  if (name == "Digits") return AddDigits(step);
  if (name == "ByteLevel") return AddByteLevel(step);
  return type.Expected("Split, Digits or ByteLevel");
}

absl::Status PreTokenizer::AddSplit(const JsonField& step) {
  MASKKV_ASSIGN_OR_RETURN(const JsonField pattern, step.Get("pattern"));
  MASKKV_ASSIGN_OR_RETURN(const JsonField regex, pattern.Get("Regex"));
  MASKKV_ASSIGN_OR_RETURN(RegexPattern compiled, CompileField(regex));
  MASKKV_ASSIGN_OR_RETURN(const JsonField behavior, step.Get("behavior"));
  MASKKV_ASSIGN_OR_RETURN(const std::string_view name, behavior.String());
  MASKKV_ASSIGN_OR_RETURN(const bool invert, BoolMember(step, "invert"));
  Keep keep = Keep::kAll;
  if (name == "Removed") {
    keep = invert ? Keep::kMatches : Keep::kRest;
  } else if (name != "Isolated") {
    return behavior.Expected("Isolated or Removed");
  }
  cuts_.push_back({std::move(compiled), keep});
  return absl::OkStatus();
}

absl::Status PreTokenizer::AddDigits(const JsonField& step) {
  MASKKV_ASSIGN_OR_RETURN(const bool individual, BoolMember(step, "individual_digits"));
  MASKKV_ASSIGN_OR_RETURN(RegexPattern compiled,
                          RegexPattern::Compile(individual ? R"(\p{N})" : R"(\p{N}+)"));
  cuts_.push_back({std::move(compiled), Keep::kAll});
  return absl::OkStatus();
}

absl::Status PreTokenizer::AddByteLevel(const JsonField& step) {
  MASKKV_ASSIGN_OR_RETURN(const JsonField prefix, step.Get("add_prefix_space"));
  MASKKV_ASSIGN_OR_RETURN(const bool adds_space, prefix.Bool());
  if (adds_space) return prefix.Expected("false, all that is supported");
  bool own_pattern = true;  // what files older than the field mean
  if (const auto use_regex = step.Find("use_regex")) {
    MASKKV_ASSIGN_OR_RETURN(own_pattern, use_regex->Bool());
  }
  if (own_pattern) {
    MASKKV_ASSIGN_OR_RETURN(RegexPattern compiled, RegexPattern::Compile(kGpt2Pattern));
    cuts_.push_back({std::move(compiled), Keep::kAll});
  }
  ends_in_bytes_ = true;
  return absl::OkStatus();
}

absl::Status PreTokenizer::ForEachPiece(std::string_view text,
                                        kernels::FunctionRef<void(std::string_view)> visit) const {
  if (text.empty()) return absl::OkStatus();
  const std::u16string wide = ToUtf16(text);
  std::vector<TextRange> pieces = {{0, static_cast<std::int32_t>(wide.size())}};
  for (const Cut& cut : cuts_) {
    std::vector<TextRange> next;
    const auto add = [&next](std::int32_t begin, std::int32_t end) {
      if (begin < end) next.push_back({begin, end});
    };
    const auto cut_piece = [&](TextRange piece, std::span<const TextRange> matches) {
      std::int32_t at = piece.begin;
      for (const TextRange& match : matches) {
        if (cut.keep != Keep::kMatches) add(at, match.begin);
        if (cut.keep != Keep::kRest) add(match.begin, match.end);
        at = match.end;
      }
      if (cut.keep != Keep::kMatches) add(at, piece.end);
    };
    MASKKV_RETURN_IF_ERROR(cut.pattern.FindAll(wide, pieces, cut_piece));
    pieces = std::move(next);
  }
  ByteCursor cursor(text);
  for (const TextRange& piece : pieces) {
    const std::size_t begin = cursor.At(piece.begin);
    visit(text.substr(begin, cursor.At(piece.end) - begin));
  }
  return absl::OkStatus();
}

}  // namespace maskkv::model
