// SPDX-License-Identifier: Apache-2.0
#include "core/model/tokenizer.h"

#include <unordered_map>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/base/file.h"
#include "core/base/status_macros.h"
#include "core/model/tokenizer_tables.h"
#include "core/model/unicode_nfc.h"
#include "core/model/utf8.h"

namespace maskkv::model {
namespace {

constexpr std::int64_t kMaxFileBytes = 1 << 28;

// Encodes pieces, each distinct short one only once: words repeat, and merging is the expensive
// part.
class PieceEncoder {
 public:
  PieceEncoder(const BytePairEncoder& encoder, std::vector<std::int32_t>& ids)
      : encoder_(encoder), ids_(ids) {}

  void Append(std::string_view piece) {
    if (piece.size() > kLongestCached) return encoder_.Append(piece, ids_);
    const auto [entry, is_new] = seen_.try_emplace(piece, Range{ids_.size(), 0});
    if (is_new) {
      encoder_.Append(piece, ids_);
      entry->second.count = ids_.size() - entry->second.begin;
      return;
    }
    for (std::size_t i = 0; i < entry->second.count; ++i) {
      ids_.push_back(ids_[entry->second.begin + i]);
    }
  }

  // Before the text that the pieces are parts of goes away.
  void Forget() { seen_.clear(); }

 private:
  static constexpr std::size_t kLongestCached = 64;
  struct Range {
    std::size_t begin;  // where in ids_ the piece's tokens stand
    std::size_t count;
  };

  const BytePairEncoder& encoder_;
  std::vector<std::int32_t>& ids_;
  std::unordered_map<std::string_view, Range> seen_;
};

}  // namespace

Tokenizer::Tokenizer(std::shared_ptr<const TokenizerTables> tables) : tables_(std::move(tables)) {}

absl::StatusOr<Tokenizer> Tokenizer::Load(const std::string& directory) {
  const std::string path = directory + "/tokenizer.json";
  MASKKV_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxFileBytes));
  return Parse(text, path);
}

absl::StatusOr<Tokenizer> Tokenizer::Parse(std::string_view json, std::string_view file) {
  MASKKV_ASSIGN_OR_RETURN(std::shared_ptr<const TokenizerTables> tables,
                          ParseTokenizerJson(json, file));
  return Tokenizer(std::move(tables));
}

absl::StatusOr<std::vector<std::int32_t>> Tokenizer::Encode(std::string_view text,
                                                            SpecialText special) const {
  if (text.size() > kMaxTextBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("text: expected at most ", kMaxTextBytes, " bytes, found ", text.size()));
  }
  if (const auto offset = FindInvalidUtf8(text)) {
    return absl::InvalidArgumentError(
        absl::StrCat("text: expected UTF-8, found byte 0x",
                     absl::Hex(static_cast<unsigned char>(text[*offset]), absl::kZeroPad2),
                     " at offset ", *offset, ", which begins no valid character"));
  }
  const bool plain = special == SpecialText::kPlain;
  std::vector<std::int32_t> ids;
  PieceEncoder encoder(tables_->encoder, ids);
  const auto on_token = [&ids](std::int32_t id) { ids.push_back(id); };
  const auto on_piece = [&encoder](std::string_view piece) { encoder.Append(piece); };
  const auto on_normal_text = [&](std::string_view part) {
    return tables_->pre_tokenizer.ForEachPiece(part, on_piece);
  };
  const auto on_raw_text = [&](std::string_view part) -> absl::Status {
    if (!tables_->normalize_nfc) {
      return tables_->normalized_added.Split(part, plain, on_normal_text, on_token);
    }
    const std::string normal = ToNfc(part);
    absl::Status status = tables_->normalized_added.Split(normal, plain, on_normal_text, on_token);
    encoder.Forget();
    return status;
  };
  MASKKV_RETURN_IF_ERROR(tables_->raw_added.Split(text, plain, on_raw_text, on_token));
  return ids;
}

std::string Tokenizer::Decode(std::span<const std::int32_t> ids, bool skip_special) const {
  StreamingDecoder decoder(*this, skip_special);
  std::string text;
  for (const std::int32_t id : ids) text += decoder.Push(id);
  return text + decoder.Finish();
}

std::string_view Tokenizer::TokenBytes(std::int32_t id) const {
  if (id < 0 || id >= vocab_size()) return {};
  return tables_->tokens[static_cast<std::size_t>(id)].bytes;
}

std::optional<std::int32_t> Tokenizer::TokenId(std::string_view token) const {
  const auto found = tables_->ids.find(std::string(token));
  if (found == tables_->ids.end()) return std::nullopt;
  return found->second;
}

bool Tokenizer::IsSpecial(std::int32_t id) const {
  return id >= 0 && id < vocab_size() && tables_->tokens[static_cast<std::size_t>(id)].special;
}

std::int32_t Tokenizer::vocab_size() const {
  return static_cast<std::int32_t>(tables_->tokens.size());
}

std::string StreamingDecoder::Push(std::int32_t id) {
  if (skip_special_ && tokenizer_.IsSpecial(id)) return {};
  pending_ += tokenizer_.TokenBytes(id);
  std::string text;
  pending_.erase(0, AppendAsUtf8(pending_, /*at_end=*/false, text));
  return text;
}

std::string StreamingDecoder::Finish() {
  std::string text;
  AppendAsUtf8(pending_, /*at_end=*/true, text);
  pending_.clear();
  return text;
}

}  // namespace maskkv::model
