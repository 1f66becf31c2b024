// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <memory>
#include <string>

#include "core/base/host_port.h"
#include "core/base/unique_fd.h"
#include "core/telemetry/metrics.h"
#include "tests/support/status_matchers.h"

namespace maskkv::telemetry {
namespace {

using maskkv::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// The answer to GET `path`, headers and body.
std::string Get(const std::string& address, const std::string& path) {
  const HostPort at = ParseHostPort("address", address).value();
  sockaddr_in peer{};
  peer.sin_family = AF_INET;
  peer.sin_port = htons(static_cast<std::uint16_t>(at.port));
  peer.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const UniqueFd socket(::socket(AF_INET, SOCK_STREAM, 0));
  if (::connect(socket.get(), reinterpret_cast<sockaddr*>(&peer), sizeof(peer)) != 0) return "";
  const std::string request =
      "GET " + path + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
  if (::send(socket.get(), request.data(), request.size(), 0) < 0) return "";
  std::string answer;
  std::array<char, 4096> part;
  for (ssize_t n; (n = ::recv(socket.get(), part.data(), part.size(), 0)) > 0;) {
    answer.append(part.data(), static_cast<std::size_t>(n));
  }
  return answer;
}

TEST(ExposerTest, AScrapeGetsTheRegistry) {
  Registry registry;
  registry.ready().Set(1);
  MASKKV_ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Exposer> exposer,
                              Exposer::Start("127.0.0.1:0", registry));
  EXPECT_THAT(exposer->address(), StartsWith("127.0.0.1:"));
  EXPECT_NE(exposer->address(), "127.0.0.1:0");
  const std::string answer = Get(exposer->address(), "/metrics");
  EXPECT_THAT(answer, HasSubstr(" 200 OK"));
  EXPECT_THAT(answer, HasSubstr("\nmaskkv_ready 1\n"));
  EXPECT_THAT(answer, HasSubstr("\nprocess_threads "));
  EXPECT_THAT(Get(exposer->address(), "/etc/passwd"), HasSubstr(" 404 "));
}

TEST(ExposerTest, LocalhostIsAnAddressToo) {
  const Registry registry;
  MASKKV_ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Exposer> exposer,
                              Exposer::Start("localhost:0", registry));
  EXPECT_THAT(exposer->address(), StartsWith("localhost:"));
  EXPECT_THAT(Get(exposer->address(), "/metrics"), HasSubstr("maskkv_ready"));
}

TEST(ExposerTest, AnAddressThatIsTakenOrMalformedIsAnError) {
  const Registry registry;
  MASKKV_ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Exposer> first,
                              Exposer::Start("127.0.0.1:0", registry));
  EXPECT_THAT(Exposer::Start(first->address(), registry),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("in use")));
  for (const char* bad : {"", "9090", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "::1:80"}) {
    EXPECT_THAT(Exposer::Start(bad, registry),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("metrics address")))
        << bad;
  }
}

}  // namespace
}  // namespace maskkv::telemetry
