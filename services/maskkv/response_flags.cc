// SPDX-License-Identifier: Apache-2.0
#include "services/maskkv/response_flags.h"

#include <CLI/CLI.hpp>
#include <charconv>

#include "absl/strings/str_format.h"
#include "services/maskkv/flag_checks.h"

namespace maskkv::cli {
namespace {

// The whole of `text` as a number.
template <typename T>
bool Parse(std::string_view text, T& value) {
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && stop == text.data() + text.size();
}

bool IsShare(double share) { return share > 0 && share <= 1; }  // false for NaN

CLI::Validator AShare() {
  return CLI::Validator(
      [](std::string& text) {
        double share = 0;
        if (Parse(text, share) && IsShare(share)) return std::string();
        return absl::StrFormat("expected a number above 0, at most 1, found %s", text);
      },
      "0..1");
}

}  // namespace

void ResponseFlags::Declare(CLI::App& app) {
  app.add_option("--response-every", every,
                 "Recompute every response row in each N-th step only, in between those that "
                 "changed most; 0, 1: all in every step")
      ->check(IntegerIn(0, kLargestCount))
      ->capture_default_str();
  app.add_option("--response-share", share,
                 "With --response-every: the share of rows that are recomputed in between, above 0")
      ->check(AShare())
      ->capture_default_str();
}

void ResponseFlags::Apply(engine::GenerateParams& params) const {
  params.response_every = every;
  params.response_share = share;
}

absl::StatusOr<ResponseFlags> ParseResponseCache(std::string_view text) {
  ResponseFlags flags;
  if (text == "off") return flags;
  const std::size_t colon = text.find(':');
  if (colon != std::string_view::npos && Parse(text.substr(0, colon), flags.every) &&
      flags.every >= 2 && flags.every <= kLargestCount &&
      Parse(text.substr(colon + 1), flags.share) && IsShare(flags.share)) {
    return flags;
  }
  return absl::InvalidArgumentError(absl::StrFormat(
      "expected off or EVERY:SHARE, an integer from 2 and a number above 0, at most 1, found %s",
      text));
}

CLI::Option* DeclareResponseCaches(CLI::App& app, std::vector<std::string>& caches) {
  return app
      .add_option("--response-caches", caches,
                  "Which response caches to compare, each as --response-every and "
                  "--response-share in one word; timed one by one")
      ->delimiter(',')
      ->check(CLI::Validator(
          [](std::string& text) {
            return std::string(ParseResponseCache(text).status().message());
          },
          "off|EVERY:SHARE"));
}

std::vector<ResponseFlags> ResponseCaches(const std::vector<std::string>& caches) {
  std::vector<ResponseFlags> parsed;
  for (const std::string& text : caches) parsed.push_back(ParseResponseCache(text).value());
  return parsed;
}

}  // namespace maskkv::cli
