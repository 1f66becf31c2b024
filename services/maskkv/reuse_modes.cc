// SPDX-License-Identifier: Apache-2.0
#include "services/maskkv/reuse_modes.h"

#include <charconv>
#include <utility>

#include "absl/strings/str_format.h"

namespace maskkv::cli {
namespace {

constexpr std::int64_t kMostVoters = 1000;

// "earlier4" with name "earlier": 4; 0 if it is none.
std::int64_t CountAfter(std::string_view text, std::string_view name) {
  if (!text.starts_with(name)) return 0;
  text.remove_prefix(name.size());
  std::int64_t count = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  if (error != std::errc() || end != text.data() + text.size()) return 0;
  return count > kMostVoters ? 0 : count;
}

bool ReadCopy(std::string_view text, QuestionSource& copy) {
  if (text == "first") copy = QuestionSource::kFirst;
  if (text == "generic") copy = QuestionSource::kGeneric;
  if (text == "none") copy = QuestionSource::kNone;
  return text == "first" || text == "generic" || text == "none";
}

bool ReadCombination(std::string_view text, ReuseMode& mode) {
  if (text == "sum") {
    mode.combination = engine::VoteCombination::kSum;
  } else if (text == "union" || text == "wide") {
    mode.combination = engine::VoteCombination::kMax;
    mode.wide = text == "wide";
  } else if (text == "intersection") {
    mode.combination = engine::VoteCombination::kMin;
  } else {
    return false;
  }
  return true;
}

bool ReadVoters(std::string_view text, ReuseMode& mode) {
  if (text == "none") {
    mode.voters = QuestionSource::kNone;
    mode.count = 1;
    return true;
  }
  mode.voters = QuestionSource::kFirst;
  mode.count = CountAfter(text, "earlier");
  if (mode.count == 0) {
    mode.voters = QuestionSource::kGeneric;
    mode.count = CountAfter(text, "generic");
  }
  return mode.count > 0;
}

}  // namespace

absl::StatusOr<ReuseMode> ParseReuseMode(std::string_view text) {
  ReuseMode mode;
  mode.name = std::string(text);
  const std::size_t at = text.find('@');
  const std::string_view what = text.substr(0, at);
  bool good = true;
  if (what == "again" || what == "all" || what == "over") {
    mode.kind = what == "again" ? ReuseKind::kAgain
                : what == "all" ? ReuseKind::kAll
                                : ReuseKind::kOver;
    good = what != "again" || at == std::string_view::npos;
  } else {
    mode.kind = ReuseKind::kVoted;
    const std::size_t colon = what.find(':');
    good = colon != std::string_view::npos && ReadCombination(what.substr(0, colon), mode) &&
           ReadVoters(what.substr(colon + 1), mode);
    mode.copy = mode.voters;
  }
  if (good && at != std::string_view::npos) good = ReadCopy(text.substr(at + 1), mode.copy);
  if (good) return mode;
  return absl::InvalidArgumentError(absl::StrFormat(
      "modes: expected again, all[@COPY], over[@COPY] or COMBINATION:VOTERS[@COPY] with "
      "COMBINATION "
      "sum, union, intersection or wide, VOTERS earlierN, genericN or none, N 1 to %d, COPY first, "
      "generic or none, found %s",
      kMostVoters, text));
}

}  // namespace maskkv::cli
