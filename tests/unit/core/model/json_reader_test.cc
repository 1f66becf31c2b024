// SPDX-License-Identifier: Apache-2.0
#include "core/model/json_reader.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/support/status_matchers.h"

namespace maskkv::model::json_reader_test {
namespace {

using maskkv::testing::IsOk;
using maskkv::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StrEq;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

TEST(JsonReader, ReadsTypedFieldsByPath) {
  MASKKV_ASSERT_OK_AND_ASSIGN(
      const JsonDocument document,
      JsonDocument::Parse(R"({"a": {"b": [1, 2.5, "x", true, null]}})", "f.json"));
  MASKKV_ASSERT_OK_AND_ASSIGN(const JsonField a, document.root().Get("a"));
  MASKKV_ASSERT_OK_AND_ASSIGN(const JsonField b, a.Get("b"));
  EXPECT_EQ(b.size(), 5U);
  EXPECT_EQ(*b.At(0)->Integer(0, 9), 1);
  EXPECT_EQ(*b.At(0)->Number(), 1.0);
  EXPECT_EQ(*b.At(1)->Number(), 2.5);
  EXPECT_EQ(*b.At(2)->String(), "x");
  EXPECT_TRUE(*b.At(3)->Bool());
  EXPECT_TRUE(b.At(4)->is_null());
}

TEST(JsonReader, SaysFileFieldExpectedAndFound) {
  MASKKV_ASSERT_OK_AND_ASSIGN(const JsonDocument document,
                              JsonDocument::Parse(R"({"a": {"b": "x"}, "c": [7]})", "f.json"));
  const JsonField a = *document.root().Get("a");
  EXPECT_THAT(a.Get("b")->Integer(1, INT64_MAX),
              StatusIs(kInvalid, StrEq("f.json: field a.b: expected an integer >= 1, found string "
                                       "\"x\"")));
  EXPECT_THAT(a.Get("z"), StatusIs(kInvalid, StrEq("f.json: field a.z: expected a value, found no "
                                                   "such field")));
  const JsonField c = *document.root().Get("c");
  EXPECT_THAT(c.At(0)->Integer(1, 6),
              StatusIs(kInvalid, StrEq("f.json: field c[0]: expected an integer between 1 and 6, "
                                       "found number 7")));
  EXPECT_THAT(c.At(1), StatusIs(kInvalid, HasSubstr("field c: expected an array of more than 1")));
  EXPECT_THAT(c.Get("x"), StatusIs(kInvalid, HasSubstr("expected an object, found an array of 1")));
}

TEST(JsonReader, IntegersMustBeWrittenAsSuchAndFit) {
  MASKKV_ASSERT_OK_AND_ASSIGN(
      const JsonDocument document,
      JsonDocument::Parse("[1.0, 1e3, 9223372036854775808, 18446744073709551616, -1, true, null]",
                          "f.json"));
  for (std::size_t i = 0; i < document.root().size(); ++i) {
    EXPECT_THAT(document.root().At(i)->Integer(0, INT64_MAX),
                StatusIs(kInvalid, HasSubstr("expected an integer >= 0")))
        << "element " << i;
  }
}

TEST(JsonReader, RefusesAKeyThatAppearsTwice) {
  EXPECT_THAT(JsonDocument::Parse(R"({"a": {"b": 1, "c": 2, "b": 1}})", "f.json"),
              StatusIs(kInvalid, StrEq("f.json: field a.b: expected every key once, found it twice "
                                       "in one object")));
  EXPECT_THAT(JsonDocument::Parse(R"({"a": [{"b": 1}, {"b": 1}], "b": 1})", "f.json"), IsOk());
}

TEST(JsonReader, RefusesNestingThatIsTooDeep) {
  const auto nested = [](int depth) {
    return std::string(static_cast<std::size_t>(depth), '[') +
           std::string(static_cast<std::size_t>(depth), ']');
  };
  EXPECT_THAT(JsonDocument::Parse(nested(JsonDocument::kMaxDepth), "f.json"), IsOk());
  EXPECT_THAT(JsonDocument::Parse(nested(JsonDocument::kMaxDepth + 1), "f.json"),
              StatusIs(kInvalid, HasSubstr("expected at most 64 levels of nesting, found more")));
  EXPECT_THAT(JsonDocument::Parse(std::string(1000000, '['), "f.json"),
              StatusIs(kInvalid, HasSubstr("levels of nesting")));
}

TEST(JsonReader, RefusesWhatIsNotJson) {
  for (const std::string text :
       {"",         " ",        "{",     "{\"a\"",   "{\"a\":}", "[1,]", "nan",     "NaN",
        "[NaN]",    "Infinity", "1e999", "[-1e999]", "{} {}",    "'a'",  "\"\\x\"", "\"\xff\"",
        "\"\xc3\"", "// x\n1",  "tru",   "\"a\nb\"", "01",       "+1",   "."}) {
    EXPECT_THAT(JsonDocument::Parse(text, "f.json"),
                StatusIs(kInvalid, AllOf(HasSubstr("f.json: not valid JSON"), HasSubstr("byte"))))
        << text;
  }
}

TEST(JsonReader, MessagesAreOneShortPrintableLine) {
  const std::string hostile = "\n\x1b[31m" + std::string(1000, 'x');
  EXPECT_EQ(Printable("a\n\x7f\xc3"), "a\\x0a\\x7f\\xc3");
  EXPECT_LT(Printable(hostile).size(), 100U);
  EXPECT_EQ(Printable(hostile).find('\n'), std::string::npos);
}

}  // namespace
}  // namespace maskkv::model::json_reader_test
