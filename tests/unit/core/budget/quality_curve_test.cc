// SPDX-License-Identifier: Apache-2.0
#include "core/budget/quality_curve.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/support/status_matchers.h"

namespace maskkv::budget {
namespace {

using ::maskkv::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

QualityPoint Point(std::int64_t budget, std::int64_t agreed) {
  return {.budget = budget,
          .predictions = 100,
          .agreed = agreed,
          .divergence = 0.5 / static_cast<double>(budget),
          .equal_answers = 3,
          .kept_mass = 0.25};
}

QualityCurve Curve() {
  return {.model_fingerprint = "abc",
          .policy = "maskkv",
          .prompts = 4,
          .agreement = 0.95,
          .points = {Point(8, 90), Point(16, 96), Point(32, 99)}};
}

TEST(QualityCurve, NamesTheSmallestBudgetFromWhichOnAllAgree) {
  QualityCurve curve = Curve();
  EXPECT_EQ(curve.NamedBudget(), 16);
  curve.points[0].agreed = 97;  // all do
  EXPECT_EQ(curve.NamedBudget(), 8);
  curve.points[1].agreed = 94;  // a smaller one that happens to agree does not count
  EXPECT_EQ(curve.NamedBudget(), 32);
  curve.points[2].agreed = 94;
  EXPECT_EQ(curve.NamedBudget(), std::nullopt);
  curve.points[2].agreed = 95;  // exactly
  EXPECT_EQ(curve.NamedBudget(), 32);
  curve.points[2].predictions = curve.points[2].agreed = 0;
  EXPECT_EQ(curve.points[2].agreement(), 1);
}

TEST(QualityCurve, SurvivesItsText) {
  QualityCurve curve = Curve();
  curve.points[1].divergence = 0.1;  // no finite binary fraction
  const auto read = ParseQualityCurve(FormatQualityCurve(curve), "file");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(*read, curve);
  curve.agreement = 1;  // names none
  EXPECT_THAT(FormatQualityCurve(curve), HasSubstr("\"budget\": null"));
  EXPECT_TRUE(ParseQualityCurve(FormatQualityCurve(curve), "file").ok());
}

TEST(QualityCurve, RefusesWhatItDoesNotSay) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  const std::string good = FormatQualityCurve(Curve());
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    const std::size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return ParseQualityCurve(text.replace(at, from.size(), to), "q.json").status();
  };
  EXPECT_THAT(
      with("\"budget\": 16,\n  \"points\"", "\"budget\": 8,\n  \"points\""),
      StatusIs(kInvalid, AllOf(HasSubstr("q.json: field budget"), HasSubstr("expected 16"))));
  EXPECT_THAT(with("\"budget\": 16,\n  \"points\"", "\"budget\": null,\n  \"points\""),
              StatusIs(kInvalid, HasSubstr("expected 16")));
  EXPECT_THAT(with("\"agreed\": 90", "\"agreed\": 101"),
              StatusIs(kInvalid, AllOf(HasSubstr("points[0].agreed"), HasSubstr("found 101"))));
  EXPECT_THAT(with("\"budget\": 32", "\"budget\": 16"),
              StatusIs(kInvalid, AllOf(HasSubstr("points[2].budget"), HasSubstr("more than 16"))));
  EXPECT_THAT(with("\"kept_mass\": 0.25", "\"kept_mass\": 1.5"),
              StatusIs(kInvalid, HasSubstr("mass")));
  EXPECT_THAT(with("\"prompts\": 4", "\"prompts\": 0"), StatusIs(kInvalid, HasSubstr("prompts")));
  EXPECT_THAT(with("\"prompts\": 4,", ""), StatusIs(kInvalid, HasSubstr("prompts")));
  EXPECT_THAT(with("\"maskkv\"", "\"\""), StatusIs(kInvalid, HasSubstr("policy")));
  EXPECT_THAT(with("maskkv quality curve", "maskkv importance profile"),
              StatusIs(kInvalid, HasSubstr("format")));
  EXPECT_THAT(with("\"version\": 1", "\"version\": 2"),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("version")));
  EXPECT_THAT(ParseQualityCurve("{", "q.json").status(), StatusIs(kInvalid, HasSubstr("q.json")));
  EXPECT_THAT(LoadQualityCurve("/nowhere/q.json").status(),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nowhere/q.json")));
  QualityCurve empty = Curve();
  empty.points.clear();
  EXPECT_THAT(SaveQualityCurve(empty, "/nowhere/q.json"), StatusIs(kInvalid, HasSubstr("points")));
}

}  // namespace
}  // namespace maskkv::budget
