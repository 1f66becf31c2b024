// SPDX-License-Identifier: Apache-2.0
#include "services/common/printable.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "tests/support/seed.h"

namespace maskkv::services {
namespace {

TEST(PrintableTest, PlainTextStaysAsItIs) {
  EXPECT_EQ(Printable("", 10), "");
  EXPECT_EQ(Printable("budget: 3", 10), "budget: 3");
  EXPECT_EQ(Printable("\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80", 9),
            "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
}

TEST(PrintableTest, ControlCharactersBecomeBlanks) {
  EXPECT_EQ(Printable(std::string("a\nb\rc\td\0e\x1b[0m\x7f", 14), 99), "a b c d e [0m ");
  EXPECT_EQ(Printable("a\xC2\x85"
                      "b\xE2\x80\xA8"
                      "c",
                      99),
            "a b c");
}

TEST(PrintableTest, BytesThatAreNoUtf8BecomeQuestionMarks) {
  EXPECT_EQ(Printable("\xFF", 9), "?");
  EXPECT_EQ(Printable("a\xC3", 9), "a?");               // cut off
  EXPECT_EQ(Printable("\xC0\xAF", 9), "??");            // overlong
  EXPECT_EQ(Printable("\xE0\x80\xAF", 9), "???");       // overlong
  EXPECT_EQ(Printable("\xED\xA0\x80", 9), "???");       // surrogate
  EXPECT_EQ(Printable("\xF4\x90\x80\x80", 9), "????");  // above U+10FFFF
  EXPECT_EQ(Printable("\xE2\x82z", 9), "??z");          // resumes at the next byte
}

TEST(PrintableTest, LongTextIsCutBetweenCharacters) {
  EXPECT_EQ(Printable("abcdef", 6), "abcdef");
  EXPECT_EQ(Printable("abcdefg", 6), "abc...");
  EXPECT_EQ(Printable("ab\xE2\x82\xAC\xE2\x82\xAC", 7), "ab...");
  EXPECT_EQ(Printable("abcd", 3), "...");
}

TEST(PrintableTest, RandomBytesGiveValidTextOfBoundedSize) {
  std::mt19937_64 random(testing::Seed());
  for (int round = 0; round < 20'000; ++round) {
    std::string text(random() % 40, ' ');
    for (char& c : text) c = static_cast<char>(random());
    const std::string once = Printable(text, 24);
    ASSERT_LE(once.size(), 24U);
    ASSERT_EQ(Printable(once, 24), once);  // valid and free of controls
  }
}

TEST(PrintableTest, PrintableAsciiHasBounds) {
  EXPECT_TRUE(IsPrintableAscii("a ~", 1, 3));
  EXPECT_FALSE(IsPrintableAscii("", 1, 3));
  EXPECT_FALSE(IsPrintableAscii("abcd", 1, 3));
  EXPECT_FALSE(IsPrintableAscii("a\n", 1, 3));
  EXPECT_FALSE(IsPrintableAscii("\xC3\xA9", 1, 3));
}

}  // namespace
}  // namespace maskkv::services
