// SPDX-License-Identifier: Apache-2.0
// tokenizer.json -> TokenizerTables.
#include <algorithm>
#include <array>
#include <optional>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/model/byte_symbols.h"
#include "core/model/json_reader.h"
#include "core/model/tokenizer_tables.h"
#include "core/model/unicode_nfc.h"

namespace maskkv::model {
namespace {

constexpr std::int32_t kMaxTokens = 1 << 22;

using Ids = std::unordered_map<std::string, std::int32_t>;
using Tokens = std::vector<TokenizerTables::Token>;

// Enters a token under an id that must be free.
absl::Status Enter(const JsonField& where, std::int32_t id, std::string_view text, bool special,
                   Tokens& tokens) {
  const auto index = static_cast<std::size_t>(id);
  if (index >= tokens.size()) tokens.resize(index + 1);
  if (tokens[index].exists) {
    return where.Expected(absl::StrCat("an id of its own (", id, " is another token's)"));
  }
  // A text outside the alphabet (an added token's may be) stands for itself.
  tokens[index] = {BytesOfSymbols(text).value_or(std::string(text)), true, special};
  return absl::OkStatus();
}

absl::Status ReadVocabulary(const JsonField& model, Tokens& tokens, Ids& ids) {
  MASKKV_ASSIGN_OR_RETURN(const JsonField vocab, model.Get("vocab"));
  ids.reserve(vocab.size());
  return vocab.ForEachMember([&](const std::string& text, const JsonField& entry) -> absl::Status {
    MASKKV_ASSIGN_OR_RETURN(const std::int64_t id, entry.Integer(0, kMaxTokens - 1));
    ids.emplace(text, static_cast<std::int32_t>(id));
    return Enter(entry, static_cast<std::int32_t>(id), text, /*special=*/false, tokens);
  });
}

// A merge as "left right" or ["left", "right"].
absl::StatusOr<std::pair<std::string, std::string>> ReadPair(const JsonField& entry) {
  if (entry.is_string()) {
    MASKKV_ASSIGN_OR_RETURN(const std::string_view text, entry.String());
    const std::size_t space = text.find(' ');
    if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos) {
      return entry.Expected("two tokens with one space between");
    }
    return std::pair(std::string(text.substr(0, space)), std::string(text.substr(space + 1)));
  }
  if (!entry.is_array() || entry.size() != 2) return entry.Expected("a pair of tokens");
  MASKKV_ASSIGN_OR_RETURN(const JsonField left, entry.At(0));
  MASKKV_ASSIGN_OR_RETURN(const JsonField right, entry.At(1));
  MASKKV_ASSIGN_OR_RETURN(const std::string_view left_text, left.String());
  MASKKV_ASSIGN_OR_RETURN(const std::string_view right_text, right.String());
  return std::pair(std::string(left_text), std::string(right_text));
}

absl::StatusOr<BytePairEncoder::MergeTable> ReadMerges(const JsonField& model, const Ids& ids) {
  MASKKV_ASSIGN_OR_RETURN(const JsonField merges, model.Get("merges"));
  BytePairEncoder::MergeTable table;
  table.reserve(merges.size());
  std::int32_t rank = 0;
  MASKKV_RETURN_IF_ERROR(merges.ForEachElement([&](const JsonField& entry) -> absl::Status {
    MASKKV_ASSIGN_OR_RETURN(const auto pair, ReadPair(entry));
    const auto left = ids.find(pair.first);
    const auto right = ids.find(pair.second);
    const auto merged = ids.find(pair.first + pair.second);
    if (left == ids.end() || right == ids.end() || merged == ids.end()) {
      return FieldError(
          entry.file(), entry.path(), "two tokens of model.vocab whose join is one too",
          absl::StrCat("\"", Printable(pair.first), "\" and \"", Printable(pair.second), "\""));
    }
    const std::uint64_t key = BytePairEncoder::PairKey(left->second, right->second);
    if (!table.emplace(key, BytePairEncoder::Merge{rank++, merged->second}).second) {
      return entry.Expected("each pair once");
    }
    return absl::OkStatus();
  }));
  return table;
}

// C0, C1 and F5..FF are in no valid UTF-8, so tokenizers trained without the whole alphabet lack
// them.
bool OccursInUtf8(int byte) { return byte != 0xc0 && byte != 0xc1 && byte < 0xf5; }

absl::StatusOr<std::array<std::int32_t, 256>> ByteIds(const JsonField& model, const Ids& ids) {
  std::array<std::int32_t, 256> byte_ids{};
  for (int byte = 0; byte < 256; ++byte) {
    const auto found = ids.find(ByteSymbol(static_cast<std::uint8_t>(byte)));
    if (found == ids.end() && OccursInUtf8(byte)) {
      MASKKV_ASSIGN_OR_RETURN(const JsonField vocab, model.Get("vocab"));
      return vocab.Expected(absl::StrCat("a token for each byte (none for 0x",
                                         absl::Hex(byte, absl::kZeroPad2), ")"));
    }
    byte_ids[static_cast<std::size_t>(byte)] =
        found == ids.end() ? BytePairEncoder::kNoToken : found->second;
  }
  return byte_ids;
}

absl::StatusOr<bool> OptionalBool(const JsonField& object, std::string_view name) {
  const auto field = object.Find(name);
  if (!field) return false;  // the fields were added to the format later, with this meaning
  return field->Bool();
}

// Options of the BPE model that change the result, all of which must be off.
absl::Status CheckModelOptions(const JsonField& model) {
  MASKKV_ASSIGN_OR_RETURN(const JsonField type, model.Get("type"));
  MASKKV_ASSIGN_OR_RETURN(const std::string_view name, type.String());
  if (name != "BPE") return type.Expected("BPE");
  if (const auto dropout = model.Find("dropout"); dropout && !dropout->is_null()) {
    const absl::StatusOr<double> value = dropout->Number();
    if (!value.ok() || *value != 0.0) return dropout->Expected("null or 0");
  }
  for (const std::string_view affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (const auto field = model.Find(affix); field && !field->is_null()) {
      const absl::StatusOr<std::string_view> value = field->String();
      if (!value.ok() || !value->empty()) return field->Expected("null or an empty string");
    }
  }
  if (const auto unknown = model.Find("unk_token"); unknown && !unknown->is_null()) {
    return unknown->Expected("null: every byte has a token");
  }
  MASKKV_ASSIGN_OR_RETURN(const bool byte_fallback, OptionalBool(model, "byte_fallback"));
  if (byte_fallback) return model.Get("byte_fallback")->Expected("false");
  return absl::OkStatus();
}

absl::StatusOr<BytePairEncoder> ReadModel(const JsonField& model, Tokens& tokens, Ids& ids) {
  MASKKV_RETURN_IF_ERROR(CheckModelOptions(model));
  MASKKV_RETURN_IF_ERROR(ReadVocabulary(model, tokens, ids));
  MASKKV_ASSIGN_OR_RETURN(const auto byte_ids, ByteIds(model, ids));
  MASKKV_ASSIGN_OR_RETURN(BytePairEncoder::MergeTable merges, ReadMerges(model, ids));
  MASKKV_ASSIGN_OR_RETURN(const bool ignore_merges, OptionalBool(model, "ignore_merges"));
  std::optional<BytePairEncoder::Words> words;
  if (ignore_merges) {
    words.emplace();
    for (const auto& [text, id] : ids) {
      if (auto bytes = BytesOfSymbols(text)) words->emplace(*std::move(bytes), id);
    }
  }
  return BytePairEncoder(byte_ids, std::move(merges), std::move(words));
}

// What added tokens there were before the one being read.
struct AddedSoFar {
  std::int64_t vocabulary;  // tokens of the model
  std::int64_t largest = -1;
  std::set<std::string, std::less<>> texts = {};

  // The id that the package gives a token which is not in the vocabulary, whatever the file says.
  std::int64_t NextId() const { return std::max(largest + 1, vocabulary); }
};

absl::Status ReadAddedToken(const JsonField& entry, AddedSoFar& before, TokenizerTables& tables) {
  MASKKV_ASSIGN_OR_RETURN(const JsonField content, entry.Get("content"));
  MASKKV_ASSIGN_OR_RETURN(const std::string_view text, content.String());
  if (text.empty()) return content.Expected("a text");
  if (!before.texts.emplace(text).second) return content.Expected("each added token once");
  for (const std::string_view flag : {"single_word", "lstrip", "rstrip"}) {
    MASKKV_ASSIGN_OR_RETURN(const JsonField field, entry.Get(flag));
    MASKKV_ASSIGN_OR_RETURN(const bool value, field.Bool());
    if (value) return field.Expected("false, all that is supported");
  }
  MASKKV_ASSIGN_OR_RETURN(const JsonField normalized_field, entry.Get("normalized"));
  MASKKV_ASSIGN_OR_RETURN(const bool normalized, normalized_field.Bool());
  MASKKV_ASSIGN_OR_RETURN(const JsonField special_field, entry.Get("special"));
  MASKKV_ASSIGN_OR_RETURN(const bool special, special_field.Bool());

  MASKKV_ASSIGN_OR_RETURN(const JsonField id_field, entry.Get("id"));
  MASKKV_ASSIGN_OR_RETURN(const std::int64_t wide_id, id_field.Integer(0, kMaxTokens - 1));
  const auto id = static_cast<std::int32_t>(wide_id);
  const auto known = tables.ids.find(std::string(text));
  const std::int64_t expected = known != tables.ids.end() ? known->second : before.NextId();
  if (id != expected) {
    return id_field.Expected(absl::StrCat(expected, known != tables.ids.end()
                                                        ? ", the token's id in model.vocab"
                                                        : ", the next free id"));
  }
  before.largest = std::max(before.largest, wide_id);
  if (known == tables.ids.end()) {
    MASKKV_RETURN_IF_ERROR(Enter(id_field, id, text, special, tables.tokens));
    tables.ids.emplace(text, id);
  } else {
    tables.tokens[static_cast<std::size_t>(id)].special |= special;
  }
  const std::string normal = normalized && tables.normalize_nfc ? ToNfc(text) : std::string(text);
  (normalized ? tables.normalized_added : tables.raw_added).Add(normal, id, special);
  return absl::OkStatus();
}

absl::StatusOr<bool> ReadNormalizer(const JsonField& root) {
  MASKKV_ASSIGN_OR_RETURN(const JsonField normalizer, root.Get("normalizer"));
  if (normalizer.is_null()) return false;
  MASKKV_ASSIGN_OR_RETURN(const JsonField type, normalizer.Get("type"));
  MASKKV_ASSIGN_OR_RETURN(const std::string_view name, type.String());
  if (name != "NFC") return type.Expected("NFC, or no normalizer");
  return true;
}

// What would change the result besides the model. The post-processor would not: it adds special
// tokens, which nobody asks for here, and moves offsets.
absl::Status CheckSurroundings(const JsonField& root) {
  for (const std::string_view name : {"truncation", "padding"}) {
    if (const auto field = root.Find(name); field && !field->is_null()) {
      return field->Expected("null");
    }
  }
  MASKKV_ASSIGN_OR_RETURN(const JsonField decoder, root.Get("decoder"));
  MASKKV_ASSIGN_OR_RETURN(const JsonField type, decoder.Get("type"));
  MASKKV_ASSIGN_OR_RETURN(const std::string_view name, type.String());
  if (name != "ByteLevel") return type.Expected("ByteLevel");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<const TokenizerTables>> ParseTokenizerJson(std::string_view json,
                                                                          std::string_view file) {
  MASKKV_ASSIGN_OR_RETURN(const JsonDocument document, JsonDocument::Parse(json, file));
  const JsonField root = document.root();
  MASKKV_RETURN_IF_ERROR(CheckSurroundings(root));
  MASKKV_ASSIGN_OR_RETURN(const bool nfc, ReadNormalizer(root));
  MASKKV_ASSIGN_OR_RETURN(const JsonField pre, root.Get("pre_tokenizer"));
  MASKKV_ASSIGN_OR_RETURN(PreTokenizer pre_tokenizer, PreTokenizer::Parse(pre));
  MASKKV_ASSIGN_OR_RETURN(const JsonField model, root.Get("model"));
  Tokens tokens;
  Ids ids;
  MASKKV_ASSIGN_OR_RETURN(BytePairEncoder encoder, ReadModel(model, tokens, ids));
  AddedSoFar before{.vocabulary = static_cast<std::int64_t>(ids.size())};
  auto tables =
      std::make_shared<TokenizerTables>(TokenizerTables{.tokens = std::move(tokens),
                                                        .ids = std::move(ids),
                                                        .raw_added = {},
                                                        .normalized_added = {},
                                                        .normalize_nfc = nfc,
                                                        .pre_tokenizer = std::move(pre_tokenizer),
                                                        .encoder = std::move(encoder)});
  MASKKV_ASSIGN_OR_RETURN(const JsonField added, root.Get("added_tokens"));
  MASKKV_RETURN_IF_ERROR(added.ForEachElement(
      [&](const JsonField& entry) { return ReadAddedToken(entry, before, *tables); }));
  return tables;
}

}  // namespace maskkv::model
