// SPDX-License-Identifier: Apache-2.0
#include "services/decode/answer_text.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "core/model/tokenizer.h"
#include "tests/support/seed.h"
#include "tests/support/status_matchers.h"

namespace maskkv::decode {
namespace {

using Ids = std::vector<std::int32_t>;
constexpr std::int32_t kEnd = 1399;  // used as an end token

const model::Tokenizer& TestTokenizer() {
  static const model::Tokenizer tokenizer =
      *model::Tokenizer::Load(MASKKV_SOURCE_DIR "/tests/data/tokenizer/gpt2");
  return tokenizer;
}

// The token whose bytes are these.
std::int32_t Token(std::string_view bytes) {
  for (std::int32_t id = 0; id < TestTokenizer().vocab_size(); ++id) {
    if (TestTokenizer().TokenBytes(id) == bytes) return id;
  }
  ADD_FAILURE() << "no token of these bytes";
  return 0;
}

Ids Tokens(std::initializer_list<std::string_view> texts) {
  Ids ids;
  for (const std::string_view text : texts) ids.push_back(Token(text));
  return ids;
}

engine::Prediction At(std::int64_t position, std::int32_t id) {
  engine::Prediction prediction;
  prediction.position = position;
  prediction.token = id;
  return prediction;
}

std::string Commit(AnswerText& answer, std::int64_t position, std::int32_t id) {
  const engine::Prediction prediction = At(position, id);
  std::string text = answer.Commit({&prediction, 1});
  answer.CheckInvariants();
  return text;
}

TEST(AnswerTextTest, ACanvasThatGrewBeforeItsLastCommitHasNotEnded) {
  AnswerText answer(&TestTokenizer(), 1, {kEnd}, {});
  answer.Grow(1);
  EXPECT_EQ(Commit(answer, 0, Token("a")), "a");
  EXPECT_FALSE(answer.ended());
  EXPECT_EQ(Commit(answer, 1, Token("b")), "b");
  EXPECT_TRUE(answer.ended());
  EXPECT_EQ(answer.tokens().size(), 2U);
}

TEST(AnswerTextTest, TextGrowsOnlyFromTheLeft) {
  AnswerText answer(&TestTokenizer(), 4, {kEnd}, {});
  EXPECT_EQ(Commit(answer, 1, Token("b")), "");
  EXPECT_EQ(Commit(answer, 0, Token("a")), "ab");
  EXPECT_EQ(Commit(answer, 3, Token("d")), "");
  EXPECT_FALSE(answer.ended());
  EXPECT_EQ(Commit(answer, 2, Token("c")), "cd");
  EXPECT_TRUE(answer.ended());
  EXPECT_EQ(answer.text(), "abcd");
}

TEST(AnswerTextTest, GivenTokensAreDecidedFromTheStartAndGivenOutWithTheFirstStep) {
  constexpr std::int32_t kMask = -1;
  AnswerText answer(&TestTokenizer(), 4, {}, {});
  answer.Start(std::vector<std::int32_t>{Token("a"), kMask, Token("c"), kMask}, kMask);
  answer.CheckInvariants();
  EXPECT_EQ(Commit(answer, 3, Token("d")), "a");
  EXPECT_FALSE(answer.ended());
  EXPECT_EQ(Commit(answer, 1, Token("b")), "bcd");
  EXPECT_TRUE(answer.ended());
  EXPECT_EQ(answer.tokens(), Tokens({"a", "b", "c", "d"}));
}

TEST(AnswerTextTest, EndsBeforeTheFirstEndTokenWhateverFollows) {
  AnswerText answer(&TestTokenizer(), 4, {kEnd}, {});
  EXPECT_EQ(Commit(answer, 2, Token("c")), "");
  EXPECT_EQ(Commit(answer, 1, kEnd), "");
  EXPECT_EQ(Commit(answer, 0, Token("a")), "a");
  EXPECT_TRUE(answer.ended());
  EXPECT_FALSE(answer.stopped());
  EXPECT_EQ(answer.tokens(), Tokens({"a"}));
}

TEST(AnswerTextTest, GivesOutWholeCharacters) {
  AnswerText answer(&TestTokenizer(), 3, {kEnd}, {});
  EXPECT_EQ(Commit(answer, 0, Token("\xe2")), "");
  EXPECT_EQ(Commit(answer, 1, Token("\x82")), "");
  EXPECT_EQ(Commit(answer, 2, Token("\xac")), "\xe2\x82\xac");
}

TEST(AnswerTextTest, AnIncompleteCharacterAtTheEndIsReplaced) {
  AnswerText answer(&TestTokenizer(), 3, {kEnd}, {});
  EXPECT_EQ(Commit(answer, 0, Token("\xe2")), "");
  EXPECT_EQ(Commit(answer, 1, kEnd), "\xef\xbf\xbd");
  EXPECT_TRUE(answer.ended());
}

TEST(AnswerTextTest, AStopStringMatchesAcrossTokensAndIsHeldBackMeanwhile) {
  AnswerText answer(&TestTokenizer(), 6, {kEnd}, {"b\nc"});
  EXPECT_EQ(Commit(answer, 0, Token("a")), "a");
  EXPECT_EQ(Commit(answer, 1, Token("b")), "");
  EXPECT_EQ(Commit(answer, 2, Token("\n")), "");
  EXPECT_FALSE(answer.stopped());
  EXPECT_EQ(Commit(answer, 3, Token("c")), "");
  EXPECT_TRUE(answer.stopped());
  EXPECT_TRUE(answer.ended());
  EXPECT_EQ(answer.text(), "a");
  EXPECT_EQ(answer.tokens(), Tokens({"a"}));
}

TEST(AnswerTextTest, TextThatTurnsOutToBeNoStopStringIsGivenOut) {
  AnswerText answer(&TestTokenizer(), 4, {kEnd}, {"aab"});
  EXPECT_EQ(Commit(answer, 0, Token("a")), "");
  EXPECT_EQ(Commit(answer, 1, Token("a")), "");
  EXPECT_EQ(Commit(answer, 2, Token("a")), "a");  // "aa" may still begin one
  EXPECT_EQ(Commit(answer, 3, Token("x")), "aax");
  EXPECT_FALSE(answer.stopped());
}

TEST(AnswerTextTest, HeldBackTextIsGivenOutAtTheEnd) {
  AnswerText answer(&TestTokenizer(), 2, {kEnd}, {"abc"});
  EXPECT_EQ(Commit(answer, 0, Token("ab")), "");
  EXPECT_EQ(Commit(answer, 1, kEnd), "ab");
  EXPECT_FALSE(answer.stopped());
}

TEST(AnswerTextTest, AShorterStopStringWaitsForALongerOneThatBeganBefore) {
  AnswerText first(&TestTokenizer(), 4, {kEnd}, {"c", "bcd"});
  EXPECT_EQ(Commit(first, 0, Token("a")), "a");
  EXPECT_EQ(Commit(first, 1, Token("b")), "");
  EXPECT_EQ(Commit(first, 2, Token("c")), "");
  EXPECT_FALSE(first.stopped());
  EXPECT_EQ(Commit(first, 3, Token("d")), "");
  EXPECT_EQ(first.text(), "a");

  AnswerText second(&TestTokenizer(), 4, {kEnd}, {"c", "bcd"});
  Commit(second, 0, Token("a"));
  Commit(second, 1, Token("b"));
  Commit(second, 2, Token("c"));
  EXPECT_EQ(Commit(second, 3, Token("x")), "b");
  EXPECT_TRUE(second.stopped());
  EXPECT_EQ(second.tokens(), Tokens({"a", "b"}));
}

TEST(AnswerTextTest, ATokenThatTheStopStringBeginsInIsNotOfTheAnswer) {
  AnswerText answer(&TestTokenizer(), 2, {kEnd}, {"ool"});
  EXPECT_EQ(Commit(answer, 0, Token("tool")), "t");
  EXPECT_TRUE(answer.stopped());
  EXPECT_EQ(answer.text(), "t");
  EXPECT_EQ(answer.tokens(), Ids());
}

TEST(AnswerTextTest, WithoutATokenizerThereAreTokensAndNoText) {
  AnswerText answer(nullptr, 2, {kEnd}, {});
  EXPECT_EQ(Commit(answer, 0, 5), "");
  EXPECT_EQ(Commit(answer, 1, 7), "");
  EXPECT_TRUE(answer.ended());
  EXPECT_EQ(answer.tokens(), (Ids{5, 7}));
}

// What a text says on its own: where the first stop string begins, and whether that can still
// change.
struct NaiveMatch {
  std::size_t begin = std::string::npos;
  bool decided = false;
};

NaiveMatch FindNaively(const std::string& text, const std::vector<std::string>& stop, bool at_end) {
  NaiveMatch match;
  for (const std::string& s : stop) match.begin = std::min(match.begin, text.find(s));
  if (match.begin == std::string::npos) return match;
  match.decided = true;
  for (std::size_t p = 0; p < match.begin && !at_end; ++p) {
    for (const std::string& s : stop) {
      if (s.starts_with(text.substr(p))) match.decided = false;
    }
  }
  return match;
}

// Text of ids so far without what waits for the rest of a character.
std::string Streamed(const Ids& ids) {
  model::StreamingDecoder decoder(TestTokenizer(), true);
  std::string text;
  for (const std::int32_t id : ids) text += decoder.Push(id);
  return text;
}

Ids TokensBefore(const Ids& ids, const std::string& text, std::size_t match) {
  Ids before;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const Ids head(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(i) + 1);
    std::size_t end = Streamed(head).size();
    // A character that goes on in the next token.
    if (TestTokenizer().Decode(head, true).size() > end) {
      do ++end;
      while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U);
    }
    if (end > match) break;
    before.push_back(ids[i]);
  }
  return before;
}

TEST(AnswerTextTest, RandomAnswersAgreeWithANaiveSearch) {
  std::mt19937_64 random(maskkv::testing::Seed());
  const Ids letters = [] {
    Ids ids = Tokens({"a", "b", "aa", "ab", "\n", "\xc3", "\xa9", "\xe2", "\x82", "\xac"});
    ids.push_back(*TestTokenizer().TokenId("<|endoftext|>"));  // special: without text
    ids.push_back(kEnd);
    return ids;
  }();
  const std::vector<std::string> parts{"a", "b", "ab", "aa", "\n", "\xc3\xa9", "\xe2\x82\xac"};
  int stopped = 0, split = 0;
  for (int round = 0; round < 4000; ++round) {
    const std::size_t length = 1 + random() % 12;
    Ids ids(length);
    for (std::int32_t& id : ids) id = letters[random() % letters.size()];
    std::vector<std::string> stop(random() % 4);
    for (std::string& s : stop) {
      for (std::uint64_t n = 1 + random() % 3; n > 0; --n) s += parts[random() % parts.size()];
    }
    std::vector<std::int64_t> order(length);
    for (std::size_t i = 0; i < length; ++i) order[i] = static_cast<std::int64_t>(i);
    std::shuffle(order.begin(), order.end(), random);

    AnswerText answer(&TestTokenizer(), static_cast<std::int64_t>(length), {kEnd}, stop);
    std::vector<bool> known(length);
    std::string given;
    for (std::size_t next = 0; next < length && !answer.stopped();) {
      std::vector<engine::Prediction> step;
      for (std::uint64_t n = 1 + random() % 3; n > 0 && next < length; --n, ++next) {
        step.push_back(At(order[next], ids[static_cast<std::size_t>(order[next])]));
        known[static_cast<std::size_t>(order[next])] = true;
      }
      given += answer.Commit(step);
      answer.CheckInvariants();

      std::size_t decided = 0;
      while (decided < length && known[decided] && ids[decided] != kEnd) ++decided;
      const bool at_end = decided == length || known[decided];
      const Ids head(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(decided));
      const std::string text = at_end ? TestTokenizer().Decode(head, true) : Streamed(head);
      const NaiveMatch match = FindNaively(text, stop, at_end);
      ASSERT_EQ(answer.stopped(), match.decided) << "round " << round;
      ASSERT_EQ(answer.ended(), at_end || match.decided);
      ASSERT_TRUE(text.starts_with(given));
      ASSERT_EQ(answer.text(), given);
      if (match.decided) {
        ++stopped;
        ASSERT_EQ(given, text.substr(0, match.begin)) << "round " << round;
        const Ids before = TokensBefore(head, text, match.begin);
        ASSERT_EQ(answer.tokens(), before) << "round " << round;
        split += Streamed(before).size() < match.begin ? 1 : 0;
      } else if (at_end) {
        ASSERT_EQ(given, text) << "round " << round;
        ASSERT_EQ(answer.tokens(), head);
      }
    }
  }
  EXPECT_GT(stopped, 300);
  EXPECT_GT(split, 20);
}

}  // namespace
}  // namespace maskkv::decode
