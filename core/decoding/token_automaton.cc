// SPDX-License-Identifier: Apache-2.0
#include "core/decoding/token_automaton.h"

#include <algorithm>
#include <string_view>
#include <tuple>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"

namespace maskkv::decoding {
namespace {

absl::Status CheckCount(std::string_view what, std::int64_t found, std::int64_t least,
                        std::int64_t most) {
  if (found >= least && found <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("automaton: %s: expected %d to %d, found %d", what, least, most, found));
}

// "state", "set": a number below `count`.
absl::Status CheckIndex(std::string_view where, std::size_t index, std::string_view what,
                        std::int32_t found, std::int64_t count) {
  if (found >= 0 && found < count) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("automaton: %s %d: expected a %s from 0 to %d, found %d", where, index, what,
                      count - 1, found));
}

absl::Status CheckSet(std::size_t index, const std::vector<IdRange>& ranges) {
  if (ranges.empty()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("automaton: set %d: expected at least one id, found none", index));
  }
  std::int64_t least = 0;  // of the next range's first id
  for (const IdRange& range : ranges) {
    if (range.first < least || range.last < range.first) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "automaton: set %d: expected ranges of ids from 0 on that ascend with a gap between "
          "them, found %d to %d",
          index, range.first, range.last));
    }
    least = std::int64_t{range.last} + 2;
  }
  return absl::OkStatus();
}

absl::Status Check(const AutomatonParts& parts) {
  MASKKV_RETURN_IF_ERROR(CheckCount("states", parts.states, 1, TokenAutomaton::kMaxStates));
  MASKKV_RETURN_IF_ERROR(
      CheckCount("accepting states", std::ssize(parts.accepting), 0, TokenAutomaton::kMaxStates));
  MASKKV_RETURN_IF_ERROR(CheckCount("sets", std::ssize(parts.sets), 0, TokenAutomaton::kMaxSets));
  MASKKV_RETURN_IF_ERROR(CheckCount("arcs", std::ssize(parts.arcs), 0, TokenAutomaton::kMaxArcs));
  MASKKV_RETURN_IF_ERROR(CheckIndex("start", 0, "state", parts.start, parts.states));
  for (std::size_t i = 0; i < parts.accepting.size(); ++i) {
    MASKKV_RETURN_IF_ERROR(
        CheckIndex("accepting state", i, "state", parts.accepting[i], parts.states));
  }
  std::int64_t ranges = 0;
  for (std::size_t i = 0; i < parts.sets.size(); ++i) {
    ranges += std::ssize(parts.sets[i]);
    MASKKV_RETURN_IF_ERROR(CheckSet(i, parts.sets[i]));
  }
  MASKKV_RETURN_IF_ERROR(CheckCount("ranges of all sets", ranges, 0, TokenAutomaton::kMaxRanges));
  for (std::size_t i = 0; i < parts.arcs.size(); ++i) {
    const AutomatonArc& arc = parts.arcs[i];
    MASKKV_RETURN_IF_ERROR(CheckIndex("arc", i, "state", arc.from, parts.states));
    MASKKV_RETURN_IF_ERROR(CheckIndex("arc", i, "set", arc.set, std::ssize(parts.sets)));
    MASKKV_RETURN_IF_ERROR(CheckIndex("arc", i, "state", arc.to, parts.states));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<const TokenAutomaton>> TokenAutomaton::Make(AutomatonParts parts) {
  MASKKV_RETURN_IF_ERROR(Check(parts));
  return std::shared_ptr<const TokenAutomaton>(new TokenAutomaton(std::move(parts)));
}

TokenAutomaton::TokenAutomaton(AutomatonParts parts)
    : start_(parts.start),
      accepts_(static_cast<std::size_t>(parts.states), 0),
      sets_(std::move(parts.sets)),
      arcs_(std::move(parts.arcs)),
      first_of_(static_cast<std::size_t>(parts.states) + 1, 0) {
  for (const std::int32_t state : parts.accepting) accepts_[static_cast<std::size_t>(state)] = 1;
  std::ranges::sort(arcs_, {},
                    [](const AutomatonArc& arc) { return std::tuple(arc.from, arc.set, arc.to); });
  arcs_.erase(std::unique(arcs_.begin(), arcs_.end()), arcs_.end());
  for (const AutomatonArc& arc : arcs_) ++first_of_[static_cast<std::size_t>(arc.from) + 1];
  for (std::size_t i = 1; i < first_of_.size(); ++i) first_of_[i] += first_of_[i - 1];
}

std::span<const AutomatonArc> TokenAutomaton::arcs_from(std::int32_t state) const {
  const auto index = static_cast<std::size_t>(state);
  return std::span(arcs_).subspan(first_of_[index], first_of_[index + 1] - first_of_[index]);
}

std::vector<char> TokenAutomaton::SetsWith(std::int32_t id) const {
  std::vector<char> with(sets_.size(), 0);
  for (std::size_t i = 0; i < sets_.size(); ++i) {
    const auto range = std::ranges::lower_bound(sets_[i], id, {}, &IdRange::last);
    with[i] = range != sets_[i].end() && range->first <= id ? 1 : 0;
  }
  return with;
}

std::optional<std::int64_t> TokenAutomaton::ShortestAnswer() const {
  std::vector<char> seen(accepts_.size(), 0);
  std::vector<std::int32_t> reached{start_};
  seen[static_cast<std::size_t>(start_)] = 1;
  for (std::int64_t tokens = 0; !reached.empty(); ++tokens) {
    std::vector<std::int32_t> next;
    for (const std::int32_t state : reached) {
      if (accepts(state)) return tokens;
      for (const AutomatonArc& arc : arcs_from(state)) {
        char& known = seen[static_cast<std::size_t>(arc.to)];
        if (known == 0) next.push_back(arc.to);
        known = 1;
      }
    }
    reached = std::move(next);
  }
  return std::nullopt;
}

}  // namespace maskkv::decoding
