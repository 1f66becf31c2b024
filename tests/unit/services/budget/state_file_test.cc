// SPDX-License-Identifier: Apache-2.0
#include "services/budget/state_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "core/base/file.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_folder.h"

namespace maskkv::budget_service {
namespace {

using maskkv::testing::IsOk;
using maskkv::testing::StatusIs;
using maskkv::testing::TempFolder;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

SavedState Some() {
  SavedState state;
  state.policy.budget = 100;
  state.policy.target_mass = 0.1 + 0.2;  // needs all of its digits
  state.policy.adapt_shares = false;
  state.plan.generation = 7;
  state.plan.model_fingerprint = std::string(64, 'a');
  state.plan.budget = 52;
  state.plan.max_budget = 512;
  state.plan.layer_weights = {1.0 + 1.0 / 3, 2.0 / 3, 1.0};
  state.plan.importance = {0.5, 1e-17, 2};
  state.plan.head_rates = {0.1, 0.1, 0.1, 0.1, 0.1, 1};
  state.plan.cause = "pressure";
  return state;
}

std::string Replaced(std::string text, const std::string& what, const std::string& by) {
  const std::size_t at = text.find(what);
  EXPECT_NE(at, std::string::npos) << what;
  return text.replace(at, what.size(), by);
}

TEST(StateFileTest, ARoundTripKeepsEveryBit) {
  const TempFolder folder;
  const std::string path = folder.File("state.json");
  ASSERT_THAT(SaveState(Some(), path), IsOk());
  MASKKV_ASSERT_OK_AND_ASSIGN(const std::optional<SavedState> loaded, LoadState(path));
  ASSERT_TRUE(loaded.has_value());
  EXPECT_EQ(*loaded, Some());
}

TEST(StateFileTest, NoFileIsNoState) {
  const TempFolder folder;
  MASKKV_ASSERT_OK_AND_ASSIGN(const std::optional<SavedState> loaded,
                              LoadState(folder.File("none.json")));
  EXPECT_FALSE(loaded.has_value());
}

TEST(StateFileTest, ACorruptFileIsRefusedNamingFileAndField) {
  const std::string good = FormatState(Some());
  const struct {
    std::string what, by, message;
  } cases[] = {
      {R"("format": "maskkv budget state")", R"("format": "other")", "field format"},
      {R"("budget": 100)", R"("budget": "100")", "field policy.budget"},
      {R"("budget": 100)", R"("budget": 1)", "field policy.budget: expected an integer from 16"},
      {R"("budget": 100)", R"("budgets": 100)", "field policy.budgets: expected no such field"},
      {R"("adapt_shares": false)", R"("adapt_shares": 0)", "field policy.adapt_shares"},
      {R"("generation": 7)", R"("generation": 0)", "field plan.generation: expected 1"},
      {R"("generation": 7)", R"("generation": -7)", "field plan.generation"},
      {R"("generation": 7)", R"("generation": 7.5)", "field plan.generation"},
      {R"("cause": "pressure")", R"("cause": "a\nb")", "field plan.cause"},
      {R"("budget": 52)", R"("budget": 0)", "field plan.budget"},
      {R"("alpha": 0.1)", R"("alpha": 1.5)", "field policy.alpha: expected"},
      {R"("head_rates": [)", R"("head_rates": [ "x",)", "field plan.head_rates"},
      {R"("head_rates": [)", R"("head_rates": [ 0.5,)",
       "field plan.head_rates: expected a multiple"},
      {R"("policy": {)", R"("policy": 5, "other": {)", "field"},
      {"}", "", "state.json"},
      {good, "", "state.json"},
      {good, "null", "state.json"},
      {good, std::string(100, '\0'), "state.json"},
  };
  for (const auto& c : cases) {
    const auto state = ParseState(Replaced(good, c.what, c.by), "state.json");
    EXPECT_THAT(state, StatusIs(absl::StatusCode::kInvalidArgument,
                                AllOf(StartsWith("state.json: "), HasSubstr(c.message))))
        << c.what << " -> " << c.by;
  }
}

TEST(StateFileTest, AnyPartOfAFileIsRefused) {
  const std::string good = FormatState(Some());
  for (std::size_t size = 0; size + 2 < good.size(); size += 3) {
    EXPECT_FALSE(ParseState(good.substr(0, size), "state.json").ok()) << size;
  }
}

TEST(StateFileTest, AnotherVersionIsNotReadAsThisOne) {
  const std::string other = Replaced(FormatState(Some()), R"("version": 1)", R"("version": 2)");
  EXPECT_THAT(ParseState(other, "state.json"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("state.json: field version: expected 1, found 2")));
}

}  // namespace
}  // namespace maskkv::budget_service
