// SPDX-License-Identifier: Apache-2.0
#include "services/maskkv/flag_checks.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/decoding/rule_spec.h"
#include "core/policy/named_policy.h"

namespace maskkv::cli {
namespace {

// Decimal digits without a leading zero, with a minus sign if T has one.
template <typename T>
bool ParseInteger(const std::string& text, T& value) {
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  const std::size_t first_digit = text.starts_with('-') ? 1 : 0;
  const bool octal = text.size() > first_digit + 1 && text[first_digit] == '0';
  return error == std::errc() && stop == end && !octal;
}

bool ParseNumber(const std::string& text, double& value) {
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  return error == std::errc() && stop == end && std::isfinite(value);
}

// Refuses what `accepts` refuses.
template <typename Accepts>
CLI::Validator Check(std::string expected, std::string shown, Accepts accepts) {
  return CLI::Validator(
      [expected = std::move(expected), accepts = std::move(accepts)](std::string& text) {
        return accepts(text) ? std::string()
                             : absl::StrFormat("expected %s, found %s", expected,
                                               text.empty() ? "nothing" : text);
      },
      std::move(shown));
}

}  // namespace

CLI::Validator IntegerIn(std::int64_t least, std::int64_t most) {
  return Check(absl::StrFormat("an integer from %d to %d", least, most),
               absl::StrFormat("%d..%d", least, most), [least, most](const std::string& text) {
                 std::int64_t value = 0;
                 return ParseInteger(text, value) && value >= least && value <= most;
               });
}

CLI::Validator AnySeed() {
  constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();
  return Check(absl::StrFormat("an integer from 0 to %d", kMost), "", [](const std::string& text) {
    std::uint64_t value = 0;
    return ParseInteger(text, value);
  });
}

CLI::Validator NumberIn(double least, double most) {
  return Check(absl::StrFormat("a number from %g to %g", least, most),
               absl::StrFormat("%g..%g", least, most), [least, most](const std::string& text) {
                 double value = 0;
                 return ParseNumber(text, value) && value >= least && value <= most;
               });
}

CLI::Validator AnyPolicy() {
  return CLI::Validator(
      [](std::string& text) {
        const auto parts = policy::ParsePolicy(text);
        if (parts.ok()) return std::string();
        return WithoutName("policy", std::string(parts.status().message()));
      },
      "NAME|VOTERS/LAYERS/HEADS");
}

CLI::Validator AnyRule() {
  return CLI::Validator(
      [](std::string& text) {
        const auto params = decoding::ParseRuleSpec(text);
        if (params.ok()) return std::string();
        return WithoutName("rule", std::string(params.status().message()));
      },
      "RULE[:VALUE][:NAME=VALUE]");
}

std::string WithoutName(std::string_view name, std::string message) {
  const std::string prefix = std::string(name) + ": ";
  return message.starts_with(prefix) ? message.substr(prefix.size()) : message;
}

CLI::Validator OneOf(std::vector<std::string> words) {
  std::string expected = absl::StrCat("one of ", absl::StrJoin(words, ", "));
  std::string shown = absl::StrJoin(words, "|");
  return Check(std::move(expected), std::move(shown),
               [words = std::move(words)](const std::string& text) {
                 return std::find(words.begin(), words.end(), text) != words.end();
               });
}

}  // namespace maskkv::cli
