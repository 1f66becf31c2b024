// SPDX-License-Identifier: Apache-2.0
#include "core/model/tokenizer.h"

#include <gtest/gtest.h>

#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "core/base/file.h"
#include "nlohmann/json.hpp"
#include "tests/support/seed.h"
#include "tests/support/status_matchers.h"

namespace maskkv::model::tokenizer_test {
namespace {

using maskkv::testing::IsOk;
using maskkv::testing::StatusIs;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
using Ids = std::vector<std::int32_t>;

std::string FolderOf(const std::string& kind) {
  return MASKKV_SOURCE_DIR "/tests/data/tokenizer/" + kind;
}

json SmallFile(const std::string& kind) {
  return json::parse(*ReadFile(FolderOf(kind) + "/tokenizer.json", 1 << 20));
}

absl::StatusOr<Tokenizer> Parse(const json& file) {
  return Tokenizer::Parse(file.dump(), "tokenizer.json");
}

// Cases that python/maskkv_tools/tokenizer_golden.py wrote with the `tokenizers` package.
class GoldenTokenizer : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Kinds, GoldenTokenizer, ::testing::Values("gpt2", "llada", "qwen2"),
                         [](const auto& kind) { return std::string(kind.param); });

TEST_P(GoldenTokenizer, GivesTheTokensAndTextsOfThePackage) {
  MASKKV_ASSERT_OK_AND_ASSIGN(const Tokenizer tokenizer, Tokenizer::Load(FolderOf(GetParam())));
  std::ifstream cases(FolderOf(GetParam()) + "/cases.jsonl");
  int count = 0;
  for (std::string line; std::getline(cases, line); ++count) {
    const json golden = json::parse(line);
    const auto text = golden["text"].get<std::string>();
    const auto ids = golden["ids"].get<Ids>();
    MASKKV_ASSERT_OK_AND_ASSIGN(const Ids parsed, tokenizer.Encode(text, SpecialText::kParse));
    EXPECT_EQ(parsed, ids) << line;
    MASKKV_ASSERT_OK_AND_ASSIGN(const Ids plain, tokenizer.Encode(text, SpecialText::kPlain));
    EXPECT_EQ(plain, golden.value("plain", ids)) << line;
    EXPECT_EQ(tokenizer.Decode(ids, /*skip_special=*/false), golden.value("decoded", text)) << line;
  }
  EXPECT_GT(count, 700);
}

TEST_P(GoldenTokenizer, StreamsWholeCharactersThatMakeTheSameText) {
  MASKKV_ASSERT_OK_AND_ASSIGN(const Tokenizer tokenizer, Tokenizer::Load(FolderOf(GetParam())));
  std::mt19937_64 random(maskkv::testing::Seed());
  for (int round = 0; round < 2000; ++round) {
    Ids ids;
    for (std::uint64_t i = 0; i < 1 + random() % 20; ++i) {
      // Some ids have no token; single bytes, the first 256, make most of the broken characters.
      const auto range = static_cast<std::uint64_t>(tokenizer.vocab_size()) + 5;
      ids.push_back(static_cast<std::int32_t>(random() % (random() % 2 == 0 ? 256 : range)));
    }
    const bool skip_special = random() % 2 == 0;
    StreamingDecoder decoder(tokenizer, skip_special);
    std::string streamed;
    for (const std::int32_t id : ids) {
      const std::string part = decoder.Push(id);
      EXPECT_TRUE(json(part).is_string() &&
                  !json(part).dump().empty());  // dump throws if not UTF-8
      streamed += part;
    }
    streamed += decoder.Finish();
    EXPECT_EQ(streamed, tokenizer.Decode(ids, skip_special));
    EXPECT_EQ(decoder.Finish(), "");
  }
}

TEST(Tokenizer, UserTextThatSpellsASpecialTokenStaysText) {
  MASKKV_ASSERT_OK_AND_ASSIGN(const Tokenizer tokenizer, Tokenizer::Load(FolderOf("llada")));
  const std::int32_t end = tokenizer.TokenId("<|eot_id|>").value();
  EXPECT_TRUE(tokenizer.IsSpecial(end));
  const std::string text = "a<|eot_id|>b";
  MASKKV_ASSERT_OK_AND_ASSIGN(const Ids parsed, tokenizer.Encode(text, SpecialText::kParse));
  EXPECT_EQ(std::count(parsed.begin(), parsed.end(), end), 1);
  MASKKV_ASSERT_OK_AND_ASSIGN(const Ids plain, tokenizer.Encode(text, SpecialText::kPlain));
  EXPECT_EQ(std::count(plain.begin(), plain.end(), end), 0);
  EXPECT_EQ(tokenizer.Decode(plain, /*skip_special=*/true), text);
  EXPECT_EQ(tokenizer.Decode(parsed, /*skip_special=*/true), "ab");
}

TEST(Tokenizer, TextThatIsNotUtf8IsRefusedByOffset) {
  MASKKV_ASSERT_OK_AND_ASSIGN(const Tokenizer tokenizer, Tokenizer::Load(FolderOf("llada")));
  EXPECT_THAT(tokenizer.Encode("abc\xe9 d", SpecialText::kPlain),
              StatusIs(kInvalid, HasSubstr("expected UTF-8, found byte 0xe9 at offset 3")));
  EXPECT_THAT(tokenizer.Encode("\xed\xa0\x80", SpecialText::kPlain),
              StatusIs(kInvalid, HasSubstr("found byte 0xed at offset 0")));
  EXPECT_THAT(tokenizer.Encode(std::string("\0", 1), SpecialText::kPlain), IsOk());
  EXPECT_EQ(tokenizer.Encode("", SpecialText::kPlain)->size(), 0U);
}

TEST(Tokenizer, IdsWithoutATokenHaveNoText) {
  MASKKV_ASSERT_OK_AND_ASSIGN(const Tokenizer tokenizer, Tokenizer::Load(FolderOf("llada")));
  const Ids ids = {-1, tokenizer.vocab_size(), INT32_MAX, INT32_MIN};
  EXPECT_EQ(tokenizer.Decode(ids, /*skip_special=*/false), "");
  EXPECT_FALSE(tokenizer.IsSpecial(-1));
  EXPECT_EQ(tokenizer.TokenId("no such token"), std::nullopt);
}

TEST(Tokenizer, ServesManyThreadsAtOnce) {
  MASKKV_ASSERT_OK_AND_ASSIGN(const Tokenizer tokenizer, Tokenizer::Load(FolderOf("qwen2")));
  const std::string text = "The quick brown fox cafe\xcc\x81! \xe6\xbc\xa2\xe5\xad\x97 123\r\n\r\n";
  MASKKV_ASSERT_OK_AND_ASSIGN(const Ids expected, tokenizer.Encode(text, SpecialText::kPlain));
  std::vector<Ids> results(4);
  {
    std::vector<std::jthread> threads;
    threads.reserve(results.size());
    for (Ids& result : results) {
      threads.emplace_back([&] {
        for (int i = 0; i < 50; ++i) result = *tokenizer.Encode(text, SpecialText::kPlain);
      });
    }
  }
  for (const Ids& result : results) EXPECT_EQ(result, expected);
}

TEST(Tokenizer, LongTextsOfOneKindAreEncoded) {
  MASKKV_ASSERT_OK_AND_ASSIGN(const Tokenizer tokenizer, Tokenizer::Load(FolderOf("llada")));
  for (const std::string unit :
       {"a", " ", "\n", " \n", "'", "<", "1", "\xe6\xbc\xa2", "\xcc\x81"}) {
    std::string text;
    while (text.size() < 300000) text += unit;
    MASKKV_ASSERT_OK_AND_ASSIGN(const Ids ids, tokenizer.Encode(text, SpecialText::kPlain));
    EXPECT_EQ(tokenizer.Decode(ids, /*skip_special=*/false), text);
  }
}

TEST(TokenizerJson, MergesMayBeTextsOrPairs) {
  json file = SmallFile("llada");
  MASKKV_ASSERT_OK_AND_ASSIGN(const Tokenizer pairs, Parse(file));
  for (json& merge : file["model"]["merges"]) {
    merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
  }
  MASKKV_ASSERT_OK_AND_ASSIGN(const Tokenizer texts, Parse(file));
  const std::string text = "the quick brown fox, don't";
  EXPECT_EQ(*pairs.Encode(text, SpecialText::kPlain), *texts.Encode(text, SpecialText::kPlain));
}

TEST(TokenizerJson, ASplitMayKeepOnlyTheMatchesOrTheRest) {
  json file = SmallFile("llada");
  json& split = file["pre_tokenizer"]["pretokenizers"][0];
  split["pattern"]["Regex"] = "[a-z]+";
  const std::string text = "ab1Cd-";
  const auto kept = [&](const char* behavior, bool invert) {
    split["behavior"] = behavior;
    split["invert"] = invert;
    const Tokenizer tokenizer = *Parse(file);
    return tokenizer.Decode(*tokenizer.Encode(text, SpecialText::kPlain), false);
  };
  EXPECT_EQ(kept("Removed", true), "abd");
  EXPECT_EQ(kept("Removed", false), "1C-");
  EXPECT_EQ(kept("Isolated", false), text);
  EXPECT_EQ(kept("Isolated", true), text);
}

// A change to a good file and what the message must say.
struct Refusal {
  const char* pointer;  // where, as a JSON pointer
  json value;           // discarded: the field is removed
  const char* message;
};

TEST(TokenizerJson, WhatIsNotSupportedIsRefusedByField) {
  const json nothing(json::value_t::discarded);
  const std::vector<Refusal> refusals = {
      {"/model", nothing, "field model: expected a value"},
      {"/model/type", "WordPiece", "field model.type: expected BPE, found string \"WordPiece\""},
      {"/model/type", nothing, "field model.type"},
      {"/model/dropout", 0.1, "field model.dropout: expected null or 0"},
      {"/model/unk_token", "<unk>", "field model.unk_token: expected null"},
      {"/model/continuing_subword_prefix", "##", "field model.continuing_subword_prefix"},
      {"/model/end_of_word_suffix", "</w>", "field model.end_of_word_suffix"},
      {"/model/byte_fallback", true, "field model.byte_fallback: expected false, found true"},
      {"/model/ignore_merges", 1, "field model.ignore_merges: expected true or false"},
      {"/model/vocab", json::array(), "field model.vocab: expected an object"},
      {"/model/vocab/a", -1, "field model.vocab.a: expected an integer between 0"},
      {"/model/vocab/a", 1 << 30, "field model.vocab.a: expected an integer between 0"},
      {"/model/vocab/a", 1, "an id of its own (1 is another token's)"},
      {"/model/vocab/a", nothing, "a token for each byte (none for 0x61)"},
      {"/model/merges", json::object(), "field model.merges: expected an array"},
      {"/model/merges/0", "ab", "field model.merges[0]: expected two tokens with one space"},
      {"/model/merges/0", "a b c", "field model.merges[0]: expected two tokens with one space"},
      {"/model/merges/0", 7, "field model.merges[0]: expected a pair of tokens"},
      {"/model/merges/0", json({"a"}), "field model.merges[0]: expected a pair of tokens"},
      {"/model/merges/0", json({"a", "\n"}), "two tokens of model.vocab whose join is one too"},
      {"/normalizer", {{"type", "NFKC"}}, "field normalizer.type: expected NFC"},
      {"/normalizer", nothing, "field normalizer: expected a value"},
      {"/pre_tokenizer", nullptr, "field pre_tokenizer: expected an object, found null"},
      {"/pre_tokenizer", {{"type", "Whitespace"}}, "expected Split, Digits or ByteLevel"},
      {"/pre_tokenizer/pretokenizers", json::array(), "pre-tokenisers that end in a ByteLevel"},
      {"/pre_tokenizer/pretokenizers/0/pattern/Regex", "(",
       "a regular expression that ICU accepts"},
      {"/pre_tokenizer/pretokenizers/0/pattern/Regex", "", "a pattern of 1 to"},
      {"/pre_tokenizer/pretokenizers/0/pattern",
       {{"String", " "}},
       "pattern.Regex: expected a value"},
      {"/pre_tokenizer/pretokenizers/0/behavior", "MergedWithNext", "expected Isolated or Removed"},
      {"/pre_tokenizer/pretokenizers/0/invert", 1, "invert: expected true or false"},
      {"/pre_tokenizer/pretokenizers/1/add_prefix_space", true, "add_prefix_space: expected false"},
      {"/pre_tokenizer/pretokenizers/2",
       {{"type", "Digits"}, {"individual_digits", true}},
       "field pre_tokenizer.pretokenizers[2]: expected nothing after ByteLevel"},
      {"/decoder", nullptr, "field decoder: expected an object, found null"},
      {"/decoder/type", "BPEDecoder", "field decoder.type: expected ByteLevel"},
      {"/truncation", {{"max_length", 8}}, "field truncation: expected null"},
      {"/padding", json::object(), "field padding: expected null"},
      {"/added_tokens", nothing, "field added_tokens: expected a value"},
      {"/added_tokens/0/content", "", "field added_tokens[0].content: expected a text"},
      {"/added_tokens/1/content", "<|startoftext|>", "expected each added token once"},
      {"/added_tokens/0/lstrip", true, "field added_tokens[0].lstrip: expected false"},
      {"/added_tokens/0/rstrip", true, "field added_tokens[0].rstrip: expected false"},
      {"/added_tokens/0/single_word", true, "field added_tokens[0].single_word: expected false"},
      {"/added_tokens/0/special", nothing, "field added_tokens[0].special: expected a value"},
      {"/added_tokens/0/id", 7, "field added_tokens[0].id: expected "},
      {"/added_tokens/0/id", "x", "field added_tokens[0].id: expected an integer"},
  };
  for (const Refusal& refusal : refusals) {
    json file = SmallFile("llada");
    json change = {
        {{"op", refusal.value.is_discarded() ? "remove" : "add"}, {"path", refusal.pointer}}};
    const std::string pointer = refusal.pointer;
    const bool replaces = pointer.find("/0") != std::string::npos && pointer.back() == '0';
    if (replaces) change[0]["op"] = "replace";
    if (!refusal.value.is_discarded()) change[0]["value"] = refusal.value;
    EXPECT_THAT(Parse(file.patch(change)),
                StatusIs(kInvalid, AllOf(HasSubstr("tokenizer.json: "), HasSubstr(refusal.message),
                                         HasSubstr(", found "))))
        << refusal.pointer;
  }
}

TEST(TokenizerJson, AMergeThatAppearsTwiceIsRefused) {
  json file = SmallFile("llada");
  file["model"]["merges"].push_back(file["model"]["merges"][0]);
  EXPECT_THAT(Parse(file), StatusIs(kInvalid, HasSubstr("expected each pair once")));
}

TEST(TokenizerJson, EveryTruncationIsRefused) {
  const std::string text = SmallFile("llada").dump();
  for (std::size_t size = 0; size < text.size(); size += 997) {
    EXPECT_THAT(Tokenizer::Parse(text.substr(0, size), "tokenizer.json"),
                StatusIs(kInvalid, HasSubstr("tokenizer.json: not valid JSON at byte")));
  }
  EXPECT_THAT(Tokenizer::Load("/nowhere"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nowhere/tokenizer.json")));
}

TEST(EmbeddedModel, HasATokenizer) {
  MASKKV_ASSERT_OK_AND_ASSIGN(const Tokenizer tokenizer,
                              Tokenizer::Load(MASKKV_SOURCE_DIR "/models/tiny-llada"));
  EXPECT_TRUE(tokenizer.TokenId("<|mdm_mask|>").has_value());
  const std::string text = "Where does she live? 42";
  EXPECT_EQ(tokenizer.Decode(*tokenizer.Encode(text, SpecialText::kPlain), false), text);
}

}  // namespace
}  // namespace maskkv::model::tokenizer_test
