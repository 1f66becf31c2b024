// SPDX-License-Identifier: Apache-2.0
#include "core/base/error.h"

#include <chrono>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace maskkv {
namespace {

using std::chrono::milliseconds;
using ::testing::IsEmpty;

TEST(Error, CarriesCodeMessageReasonAndFacts) {
  const absl::Status status =
      MakeError(absl::StatusCode::kResourceExhausted, "ENTRY_TOO_LARGE",
                "entry: expected at most 10 bytes, found 11", {{"limit", "10"}, {"field", ""}});
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(), "entry: expected at most 10 bytes, found 11");
  EXPECT_EQ(ErrorReason(status), "ENTRY_TOO_LARGE");
  EXPECT_EQ(FactsOf(status), (ErrorFacts{{"field", ""}, {"limit", "10"}}));
  EXPECT_EQ(RetryAfter(status), std::nullopt);
}

TEST(Error, SurvivesACopy) {
  absl::Status copy;
  {
    const absl::Status status = WithRetryAfter(
        MakeError(absl::StatusCode::kUnavailable, "NO_PLAN", "plan: none"), milliseconds(250));
    copy = status;
  }
  EXPECT_EQ(ErrorReason(copy), "NO_PLAN");
  EXPECT_EQ(RetryAfter(copy), milliseconds(250));
}

TEST(Error, AStatusWithoutAReasonHasTheOneOfItsCode) {
  EXPECT_EQ(ErrorReason(absl::InvalidArgumentError("x")), "INVALID_ARGUMENT");
  EXPECT_EQ(ErrorReason(absl::DeadlineExceededError("x")), "DEADLINE_EXCEEDED");
  EXPECT_THAT(FactsOf(absl::InvalidArgumentError("x")), IsEmpty());
}

TEST(Error, OkHasNoReasonNoFactsAndNothingToWaitFor) {
  const absl::Status ok = WithRetryAfter(absl::OkStatus(), milliseconds(5));
  EXPECT_TRUE(ok.ok());
  EXPECT_EQ(ErrorReason(ok), "");
  EXPECT_THAT(FactsOf(ok), IsEmpty());
  EXPECT_EQ(RetryAfter(ok), std::nullopt);
}

TEST(Error, TheLastHintToWaitCounts) {
  const absl::Status status =
      WithRetryAfter(WithRetryAfter(absl::UnavailableError("x"), milliseconds(5)), milliseconds(7));
  EXPECT_EQ(RetryAfter(status), milliseconds(7));
  EXPECT_EQ(ErrorReason(status), "UNAVAILABLE");
}

TEST(Error, PayloadsOfOthersAreNoFacts) {
  absl::Status status = MakeError(absl::StatusCode::kAborted, "EPOCH_MOVED", "epoch: moved");
  status.SetPayload("type.googleapis.com/x", absl::Cord("y"));
  EXPECT_THAT(FactsOf(status), IsEmpty());
  EXPECT_EQ(ErrorReason(status), "EPOCH_MOVED");
}

TEST(ErrorDeathTest, AReasonIsUpperSnakeCase) {
  EXPECT_DEATH((void)MakeError(absl::StatusCode::kAborted, "Epoch moved", "x"), "UPPER_SNAKE");
  EXPECT_DEATH((void)MakeError(absl::StatusCode::kOk, "FINE", "x"), "not OK");
}

}  // namespace
}  // namespace maskkv
