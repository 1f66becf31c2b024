// SPDX-License-Identifier: Apache-2.0
//
// Every row of docs/errors.md travels through a real channel with its details: code, ErrorInfo,
// RetryInfo.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "tests/integration/test_service.h"

namespace maskkv::services {
namespace {

using namespace std::chrono_literals;

struct Row {
  absl::StatusCode code;
  std::string reason;
  bool retry_info;
};

absl::StatusCode ParseCode(const std::string& name) {
  for (int code = 1; code <= 16; ++code) {
    if (absl::StatusCodeToString(static_cast<absl::StatusCode>(code)) == name) {
      return static_cast<absl::StatusCode>(code);
    }
  }
  return absl::StatusCode::kOk;
}

std::vector<std::string> Cells(const std::string& line) {
  std::vector<std::string> cells;
  std::istringstream stream(line.substr(1));
  for (std::string cell; std::getline(stream, cell, '|');) {
    const std::size_t begin = cell.find_first_not_of(' '), end = cell.find_last_not_of(' ');
    cells.push_back(begin == cell.npos ? "" : cell.substr(begin, end - begin + 1));
  }
  return cells;
}

// The rows of the table whose head is "| code | reason | when | retry | what to do |".
std::vector<Row> ReadTable() {
  std::ifstream file(MASKKV_SOURCE_DIR "/docs/errors.md");
  std::vector<Row> rows;
  bool inside = false;
  for (std::string line; std::getline(file, line);) {
    if (line == "| code | reason | when | retry | what to do |") {
      inside = true;
    } else if (inside && line.starts_with("| ---")) {
      continue;
    } else if (inside && line.starts_with('|')) {
      const std::vector<std::string> cells = Cells(line);
      EXPECT_EQ(cells.size(), 5U) << line;
      rows.push_back({ParseCode(cells[0]), cells[1], cells[3] == "RetryInfo"});
    } else {
      inside = false;
    }
  }
  return rows;
}

TEST(ErrorDetailsTest, EveryRowOfTheTableArrivesWithItsDetails) {
  const std::vector<Row> rows = ReadTable();
  ASSERT_GT(rows.size(), 25U);
  testing::TestService service;
  service.on_prefill = [&](const Call&, const v1::PrefillRequest& request, v1::PrefillResponse&) {
    const Row& row = rows.at(static_cast<std::size_t>(request.priority()));
    absl::Status status =
        MakeError(row.code, row.reason, "field: expected 1, found 2", {{"field", "budget"}});
    return row.retry_info ? WithRetryAfter(std::move(status), 250ms) : status;
  };
  telemetry::Registry registry;
  grpc::Service* const services[] = {&service};
  MASKKV_ASSERT_OK_AND_ASSIGN(const Server server, Server::Start({}, services, registry));
  const auto stub = v1::PrefillService::NewStub(OpenChannel(server.address()));

  for (std::size_t i = 0; i < rows.size(); ++i) {
    SCOPED_TRACE(rows[i].reason);
    grpc::ClientContext context;
    v1::PrefillRequest request;
    request.set_priority(static_cast<std::int32_t>(i));
    v1::PrefillResponse response;
    const grpc::Status raw = stub->Prefill(&context, request, &response);

    // As a client in any language sees it.
    EXPECT_EQ(static_cast<int>(raw.error_code()), static_cast<int>(rows[i].code));
    google::rpc::Status details;
    ASSERT_TRUE(details.ParseFromString(raw.error_details()));
    ASSERT_EQ(details.details_size(), rows[i].retry_info ? 2 : 1);
    google::rpc::ErrorInfo info;
    ASSERT_TRUE(details.details(0).UnpackTo(&info));
    EXPECT_EQ(info.reason(), rows[i].reason);
    EXPECT_EQ(info.domain(), "maskkv");
    EXPECT_EQ(info.metadata().at("field"), "budget");
    if (rows[i].retry_info) {
      google::rpc::RetryInfo retry;
      ASSERT_TRUE(details.details(1).UnpackTo(&retry));
      EXPECT_EQ(retry.retry_delay().nanos(), 250'000'000);
    }

    // As our own services see it.
    const absl::Status restored = FromGrpc(raw);
    EXPECT_EQ(restored.code(), rows[i].code);
    EXPECT_EQ(restored.message(), "field: expected 1, found 2");
    EXPECT_EQ(ErrorReason(restored), rows[i].reason);
    EXPECT_EQ(FactsOf(restored), (ErrorFacts{{"field", "budget"}}));
    EXPECT_EQ(RetryAfter(restored).has_value(), rows[i].retry_info);
  }
}

TEST(ErrorDetailsTest, NoReasonStandsForTwoCodes) {
  std::map<std::string, absl::StatusCode> codes;
  for (const Row& row : ReadTable()) {
    EXPECT_NE(row.code, absl::StatusCode::kOk) << row.reason;
    EXPECT_TRUE(codes.emplace(row.reason, row.code).second) << row.reason;
  }
}

}  // namespace
}  // namespace maskkv::services
