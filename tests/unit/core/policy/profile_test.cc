// SPDX-License-Identifier: Apache-2.0
#include "core/policy/profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "core/base/file.h"
#include "tests/support/seed.h"
#include "tests/support/status_matchers.h"

namespace maskkv::policy::profile_test {
namespace {

using ::maskkv::testing::IsOk;
using ::maskkv::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

ImportanceProfile Example() {
  return {.model_fingerprint = "sha256:0123abcd",
          .samples = 64,
          .tokens = 70312,
          .importance = {0.41, 1.0 / 3.0, 0.0, 2.0},
          .creation = {.data = "calibration.jsonl", .masks = 32, .dtype = "f32"}};
}

// The example's text with `from` replaced; `from` must be there.
std::string Changed(const std::string& from, const std::string& to) {
  std::string text = FormatProfile(Example());
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

TEST(Profile, SurvivesTheRoundTripBitForBit) {
  const ImportanceProfile profile = Example();
  MASKKV_ASSERT_OK_AND_ASSIGN(const ImportanceProfile parsed,
                              ParseProfile(FormatProfile(profile), "p.json"));
  EXPECT_EQ(parsed, profile);
}

TEST(Profile, RandomImportancesSurviveTheRoundTripBitForBit) {
  std::mt19937_64 random(testing::Seed());
  for (int round = 0; round < 100; ++round) {
    ImportanceProfile profile = Example();
    profile.importance.resize(1 + random() % 64);
    for (double& value : profile.importance) {
      value = std::uniform_real_distribution<double>(0, 2)(random);
      if (random() % 8 == 0) value = std::numeric_limits<double>::denorm_min();
    }
    MASKKV_ASSERT_OK_AND_ASSIGN(const ImportanceProfile parsed,
                                ParseProfile(FormatProfile(profile), "p.json"));
    EXPECT_EQ(parsed, profile) << "round " << round;
  }
}

TEST(Profile, IsSavedAndLoadedUnderItsPath) {
  const std::string path = ::testing::TempDir() + "/maskkv_profile_test.json";
  ASSERT_THAT(SaveProfile(Example(), path), IsOk());
  MASKKV_ASSERT_OK_AND_ASSIGN(const ImportanceProfile loaded, LoadProfile(path));
  EXPECT_EQ(loaded, Example());
  ASSERT_THAT(WriteFileAtomically(path, "{}"), IsOk());
  EXPECT_THAT(LoadProfile(path), StatusIs(kInvalid, StartsWith(path)));
  std::filesystem::remove(path);
  EXPECT_THAT(LoadProfile(path), StatusIs(absl::StatusCode::kNotFound, StartsWith(path)));
}

TEST(Profile, AnInvalidOneIsNotSaved) {
  const std::string path = ::testing::TempDir() + "/maskkv_profile_invalid.json";
  ImportanceProfile profile = Example();
  profile.importance[1] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(SaveProfile(profile, path), StatusIs(kInvalid, HasSubstr("layer 1")));
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(Profile, AnotherVersionIsRefusedBeforeItsFieldsAreLookedAt) {
  for (const char* version : {"2", "0", "-1", "1.0", "\"1\"", "null", "[1]"}) {
    EXPECT_THAT(ParseProfile(std::string("{\"version\": ") + version + ", \"new\": 1}", "p.json"),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("p.json: field version: expected 1, found ")))
        << version;
  }
}

TEST(Profile, EveryFieldIsNeeded) {
  // Each line of the example but the braces and the members of arrays holds one field.
  for (const char* field : {"format", "version", "model_fingerprint", "samples", "tokens",
                            "importance", "creation", "data", "masks", "dtype"}) {
    const std::string name = std::string("\"") + field + "\":";
    EXPECT_THAT(ParseProfile(Changed(name, "\"other\":"), "p.json"),
                StatusIs(kInvalid, StartsWith("p.json: field ")))
        << field;
  }
}

TEST(Profile, EveryFieldIsValidatedAndNamed) {
  const std::vector<std::pair<std::pair<std::string, std::string>, std::string>> cases = {
      {{"maskkv importance profile", "another"}, "field format: expected"},
      {{"\"sha256:0123abcd\"", "17"}, "field model_fingerprint: expected a string, found 17"},
      {{"sha256:0123abcd", ""}, "field model_fingerprint: expected 1 to 256"},
      {{"sha256:0123abcd", "\\n"}, "field model_fingerprint: expected 1 to 256"},
      {{"sha256:0123abcd", std::string(257, 'x')}, "field model_fingerprint"},
      {{"64", "0"}, "field samples: expected an integer >= 1, found 0"},
      {{"64", "1.5"}, "field samples: expected a 64-bit integer, found 1.5"},
      {{"64", "18446744073709551615"}, "field samples: expected a 64-bit integer"},
      {{"64", "true"}, "field samples: expected a 64-bit integer, found true"},
      {{"70312", "63"}, "field tokens: expected an integer >= 64, found 63"},
      {{"0.41", "-0.41"}, "layer 0: expected a finite number >= 0, found -0.41"},
      {{"0.41", "2.5"}, "layer 0: expected a number from 0 to 2, found 2.5"},
      {{"0.41", "\"0.41\""}, "field importance[0]: expected a number, found \"0.41\""},
      {{"0.41", "null"}, "field importance[0]: expected a number, found null"},
      {{"\"calibration.jsonl\"", "[]"}, "field creation.data: expected a string, found []"},
      {{"calibration.jsonl", "a\\tb"}, "field creation.data: expected at most 256 bytes"},
      {{"calibration.jsonl", "\x7f"}, "field creation.data: expected at most 256 bytes"},
      {{"32", "0"}, "field creation.masks: expected an integer >= 1, found 0"},
      {{"\"f32\"", "\"f64\""}, "field creation.dtype: expected \"f32\", \"bf16\" or \"int8\""},
      {{"\"samples\": 64", "\"samples\": 64, \"samples\": 64"}, "expected every field once"},
      {{"\"samples\": 64", "\"samples\": 64, \"sample\": 64"},
       "field \"sample\": expected no such"},
      {{"\"masks\": 32", "\"masks\": 32, \"x\": 1"}, "field creation.\"x\": expected no such"},
  };
  for (const auto& [change, message] : cases) {
    EXPECT_THAT(ParseProfile(Changed(change.first, change.second), "p.json"),
                StatusIs(kInvalid, AllOf(StartsWith("p.json: "), HasSubstr(message))))
        << change.second;
  }
}

TEST(Profile, NamesOfDataAreUtf8) {
  ImportanceProfile profile = Example();
  profile.creation.data = "\xc3\xa9.jsonl";
  MASKKV_ASSERT_OK_AND_ASSIGN(const ImportanceProfile parsed,
                              ParseProfile(FormatProfile(profile), "p.json"));
  EXPECT_EQ(parsed, profile);
  profile.creation.data = "\xc3.jsonl";
  EXPECT_THAT(Validate(profile), StatusIs(kInvalid, HasSubstr("field creation.data")));
}

TEST(Profile, ImportanceHasAtLeastOneLayerAndABoundedNumber) {
  ImportanceProfile profile = Example();
  profile.importance.clear();
  EXPECT_THAT(Validate(profile), StatusIs(kInvalid, HasSubstr("expected 1 to 4096 layers")));
  profile.importance.assign(kMaxProfileLayers, 0.1);
  EXPECT_THAT(Validate(profile), IsOk());
  EXPECT_LT(FormatProfile(profile).size(), static_cast<std::size_t>(kMaxProfileBytes));
  profile.importance.push_back(0.1);
  EXPECT_THAT(Validate(profile), StatusIs(kInvalid, HasSubstr("found 4097")));
}

TEST(Profile, EveryTruncationIsRefused) {
  const std::string text = FormatProfile(Example());
  for (std::size_t size = 0; size + 2 < text.size(); ++size) {
    EXPECT_THAT(ParseProfile(std::string_view(text).substr(0, size), "p.json"),
                StatusIs(kInvalid, StartsWith("p.json: ")))
        << size;
  }
}

TEST(Profile, OtherJsonIsRefusedWithOneLine) {
  for (const char* text : {"", "null", "[]", "1", "\"x\"", "{}", "{} {}", "{\"a\": 1e999}", "\xff",
                           "{\"format\": \"\xff\"}"}) {
    const auto profile = ParseProfile(text, "p.json");
    EXPECT_THAT(profile, StatusIs(kInvalid, StartsWith("p.json: "))) << text;
    EXPECT_EQ(profile.status().message().find('\n'), absl::string_view::npos) << text;
  }
}

TEST(Profile, DeepNestingIsRefusedWithoutRecursion) {
  const std::string deep(200000, '[');
  EXPECT_THAT(ParseProfile(deep, "p.json"), StatusIs(kInvalid, StartsWith("p.json: ")));
  const std::string closed = std::string("{\"version\": 1, \"format\": ") +
                             std::string(200000, '[') + std::string(200000, ']') + "}";
  EXPECT_THAT(ParseProfile(closed, "p.json"), StatusIs(kInvalid, StartsWith("p.json: ")));
  // In the place of a field of an otherwise whole profile, where a message would quote it.
  std::string whole = FormatProfile(Example());
  const std::string field = "\"samples\": ";
  const std::size_t at = whole.find(field);
  ASSERT_NE(at, std::string::npos);
  for (const auto& [open, close] : {std::pair("[", "]"), std::pair("{\"a\": ", "}")}) {
    std::string value;
    for (int i = 0; i < 60000; ++i) value += open;
    value += "1";
    for (int i = 0; i < 60000; ++i) value += close;
    std::string text = whole;
    text.replace(at + field.size(), text.find(',', at) - at - field.size(), value);
    EXPECT_THAT(ParseProfile(text, "p.json"),
                StatusIs(kInvalid, ::testing::HasSubstr("levels of nesting, found more")));
  }
}

}  // namespace
}  // namespace maskkv::policy::profile_test
