// SPDX-License-Identifier: Apache-2.0
#include "core/model/utf8.h"

#include <gtest/gtest.h>

#include <string>

namespace maskkv::model {
namespace {

std::string Lossy(std::string_view text) {
  std::string out;
  EXPECT_EQ(AppendAsUtf8(text, /*at_end=*/true, out), text.size());
  return out;
}

TEST(Utf8, InvalidBytesAreFoundByOffset) {
  EXPECT_EQ(FindInvalidUtf8(""), std::nullopt);
  EXPECT_EQ(FindInvalidUtf8("a\xc3\xa9\xe6\xbc\xa2\xf0\x9f\x98\x80"), std::nullopt);
  EXPECT_EQ(FindInvalidUtf8(std::string_view("\0", 1)), std::nullopt);
  EXPECT_EQ(FindInvalidUtf8("\xf4\x8f\xbf\xbf"), std::nullopt);
  for (const std::string bad :
       {"\x80", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xed\xa0\x80", "\xf0\x80\x80\x80",
        "\xf4\x90\x80\x80", "\xf5\x80", "\xff", "\xc3", "\xe6\xbc", "\xf0\x9f\x98", "\xe6z"}) {
    EXPECT_EQ(FindInvalidUtf8("ab" + bad), 2U);
  }
}

TEST(Utf8, EachMaximalPrefixOfACharacterBecomesOneReplacement) {
  EXPECT_EQ(Lossy("a\xff"
                  "b"),
            "a\xef\xbf\xbd"
            "b");
  // Table 3-8 of the Unicode Standard.
  EXPECT_EQ(Lossy("\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41"),
            "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"
            "\xef\xbf\xbd\x41");
  // Table 3-11: truncated sequences.
  EXPECT_EQ(Lossy("\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41"),
            "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\x41");
}

TEST(Utf8, AnIncompleteCharacterWaitsUnlessItIsTheEnd) {
  std::string out;
  EXPECT_EQ(AppendAsUtf8("a\xf0\x9f\x98", /*at_end=*/false, out), 1U);
  EXPECT_EQ(out, "a");
  EXPECT_EQ(Lossy("a\xf0\x9f\x98"), "a\xef\xbf\xbd");
}

TEST(Utf8, StripsTheWhiteSpaceThatPythonStrips) {
  EXPECT_EQ(StripWhiteSpace(" \t\r\n\v\f\x1c\x1f\xc2\x85\xc2\xa0\xe3\x80\x80"
                            "a b \xe2\x80\x83"),
            "a b");
  EXPECT_EQ(StripWhiteSpace("\xe2\x80\x8b"
                            "a\xef\xbb\xbf"),
            "\xe2\x80\x8b"
            "a\xef\xbb\xbf");
  EXPECT_EQ(StripWhiteSpace(" \n "), "");
  EXPECT_EQ(StripWhiteSpace(""), "");
}

}  // namespace
}  // namespace maskkv::model
