// SPDX-License-Identifier: Apache-2.0
#include "services/common/status.h"

#include <gmock/gmock.h>
#include <grpcpp/support/status.h>
#include <gtest/gtest.h>

#include <chrono>
#include <optional>
#include <random>
#include <string>

#include "core/base/error.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "services/common/library_logs.h"
#include "tests/support/seed.h"
#include "tests/support/status_matchers.h"

namespace maskkv::services {
namespace {

using namespace std::chrono_literals;
using ::testing::EndsWith;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

absl::Status ThereAndBack(const absl::Status& status) { return FromGrpc(ToGrpc(status)); }

// A status as a peer of another kind could send it.
grpc::Status Forged(const google::protobuf::Message& detail, int code = 9) {
  google::rpc::Status details;
  details.add_details()->PackFrom(detail);
  return {static_cast<grpc::StatusCode>(code), "message", details.SerializeAsString()};
}

TEST(StatusTest, OkStaysOk) {
  EXPECT_TRUE(ToGrpc(absl::OkStatus()).ok());
  EXPECT_THAT(FromGrpc(grpc::Status::OK), testing::IsOk());
  EXPECT_THAT(FromGrpc({grpc::StatusCode::OK, "message", "details"}), testing::IsOk());
}

TEST(StatusTest, EverythingSurvivesTheWayForEveryCode) {
  for (int code = 1; code <= 16; ++code) {
    const absl::Status sent = WithRetryAfter(
        MakeError(static_cast<absl::StatusCode>(code), "SOME_REASON", "field: expected 1, found 2",
                  {{"field", "budget"}, {"limit", "2"}}),
        1500ms);
    const absl::Status got = ThereAndBack(sent);
    EXPECT_EQ(got.code(), sent.code());
    EXPECT_EQ(got.message(), sent.message());
    EXPECT_EQ(ErrorReason(got), "SOME_REASON");
    EXPECT_THAT(FactsOf(got), UnorderedElementsAre(Pair("field", "budget"), Pair("limit", "2")));
    EXPECT_EQ(RetryAfter(got), 1500ms);
  }
}

TEST(StatusTest, AnErrorWithoutReasonGetsTheOneOfItsCode) {
  const grpc::Status sent =
      ToGrpc(absl::NotFoundError("file: expected to be there, found nothing"));
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(sent.error_details()));
  EXPECT_EQ(details.code(), 5);
  ASSERT_EQ(details.details_size(), 1);
  google::rpc::ErrorInfo info;
  ASSERT_TRUE(details.details(0).UnpackTo(&info));
  EXPECT_EQ(info.reason(), "NOT_FOUND");
  EXPECT_EQ(info.domain(), "maskkv");
  EXPECT_EQ(RetryAfter(FromGrpc(sent)), std::nullopt);
}

TEST(StatusTest, MessagesAndFactsAreBoundedAndPrintable) {
  const std::string huge(100'000, 'x');
  ErrorFacts facts;
  for (int i = 0; i < 100; ++i) facts["name" + std::to_string(i) + huge] = "\xFF\n" + huge;
  const grpc::Status sent =
      ToGrpc(MakeError(absl::StatusCode::kInternal, "INTERNAL", "two\nlines \xFF" + huge, facts));
  EXPECT_EQ(sent.error_message().size(), 1024U);
  EXPECT_THAT(sent.error_message(), ::testing::StartsWith("two lines ?xxx"));
  EXPECT_THAT(sent.error_message(), EndsWith("x..."));
  EXPECT_LT(sent.error_details().size(), 4096U);
}

TEST(StatusTest, DetailsOfOthersAreDroppedTheCodeStays) {
  google::rpc::ErrorInfo foreign;
  foreign.set_reason("SOME_REASON");
  foreign.set_domain("example.org");
  google::rpc::ErrorInfo lower = foreign;
  lower.set_domain("maskkv");
  lower.set_reason("not upper");
  for (const grpc::Status& status :
       {grpc::Status(grpc::StatusCode::FAILED_PRECONDITION, "message", "no protobuf \xFF\xFF"),
        grpc::Status(grpc::StatusCode::FAILED_PRECONDITION, "message"), Forged(foreign),
        Forged(lower)}) {
    const absl::Status got = FromGrpc(status);
    EXPECT_EQ(got.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(got.message(), "message");
    EXPECT_EQ(ErrorReason(got), "FAILED_PRECONDITION");
  }
  EXPECT_EQ(FromGrpc(Forged(foreign, -1)).code(), absl::StatusCode::kUnknown);
}

TEST(StatusTest, ForgedWaitsAreBounded) {
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(std::numeric_limits<std::int64_t>::max());
  retry.mutable_retry_delay()->set_nanos(std::numeric_limits<std::int32_t>::max());
  EXPECT_EQ(RetryAfter(FromGrpc(Forged(retry))), 1h);
  retry.mutable_retry_delay()->set_seconds(std::numeric_limits<std::int64_t>::min());
  retry.mutable_retry_delay()->set_nanos(-1);
  EXPECT_EQ(RetryAfter(FromGrpc(Forged(retry))), 0ms);
}

TEST(StatusTest, RandomDetailsNeverEndTheProcess) {
  RouteLibraryLogs();  // or protobuf writes a line for most of them
  std::mt19937_64 random(testing::Seed());
  const grpc::Status good = ToGrpc(WithRetryAfter(
      MakeError(absl::StatusCode::kAborted, "EPOCH_MOVED", "m", {{"field", "handle"}}), 10ms));
  for (int round = 0; round < 20'000; ++round) {
    std::string details = good.error_details();
    for (std::uint64_t n = 1 + random() % 4; n > 0; --n) {
      details[random() % details.size()] = static_cast<char>(random());
    }
    details.resize(random() % (details.size() + 1));
    const absl::Status got = FromGrpc({grpc::StatusCode::ABORTED, "m", details});
    ASSERT_EQ(got.code(), absl::StatusCode::kAborted);
    ASSERT_FALSE(ErrorReason(got).empty());
  }
}

}  // namespace
}  // namespace maskkv::services
