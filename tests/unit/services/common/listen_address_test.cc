// SPDX-License-Identifier: Apache-2.0
#include "services/common/listen_address.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "core/base/error.h"
#include "tests/support/status_matchers.h"

namespace maskkv::services {
namespace {

using maskkv::testing::StatusIs;
using ::testing::_;
using ::testing::HasSubstr;

TEST(ListenAddressTest, LoopbackAndSocketsAreTaken) {
  const struct {
    const char *text, *grpc;
  } cases[] = {{"127.0.0.1:0", "127.0.0.1:0"},
               {"127.1.2.3:80", "127.1.2.3:80"},
               {"localhost:80", "127.0.0.1:80"},
               {"[::1]:50051", "[::1]:50051"},
               {"unix:a.sock", "unix:a.sock"},
               {"unix:/run/a.sock", "unix:/run/a.sock"},
               {"unix:///run/a.sock", "unix:/run/a.sock"}};
  for (const auto& [text, grpc] : cases) {
    MASKKV_ASSERT_OK_AND_ASSIGN(const ListenAddress address, ParseListenAddress(text, false));
    EXPECT_EQ(address.ToString(), grpc);
  }
}

TEST(ListenAddressTest, WhatOtherMachinesReachNeedsPermission) {
  for (const char* text :
       {"0.0.0.0:80", "10.0.0.1:80", "[::]:80", "example.org:80", "128.0.0.1:1"}) {
    const auto refused = ParseListenAddress(text, false);
    EXPECT_THAT(refused, StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--allow-pl")));
    EXPECT_EQ(ErrorReason(refused.status()), "PLAINTEXT_REFUSED");
    EXPECT_THAT(ParseListenAddress(text, true), testing::IsOk());
  }
}

TEST(ListenAddressTest, MalformedOnesNameWhatWasExpected) {
  for (const std::string& text :
       {std::string(), std::string("localhost"), std::string("localhost:"), std::string(":80"),
        std::string("127.0.0.1:65536"), std::string("127.0.0.1:-1"), std::string("127.0.0.1:8 "),
        std::string("::1:80"), std::string("[127.0.0.1]:80"), std::string("a b:80"),
        std::string("dns:///x:80"), std::string("unix:"), "unix:" + std::string(108, 'a'),
        std::string("unix:a\0b", 8)}) {
    const auto parsed = ParseListenAddress(text, true);
    EXPECT_THAT(parsed, StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("listen address")));
    EXPECT_EQ(ErrorReason(parsed.status()), "BAD_ADDRESS");
  }
}

}  // namespace
}  // namespace maskkv::services
