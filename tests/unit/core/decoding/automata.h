// SPDX-License-Identifier: Apache-2.0
//
// Token automata for tests: random ones, and acceptance by a simulation that shares no code with
// core/decoding.
#ifndef MASKKV_TESTS_UNIT_CORE_DECODING_AUTOMATA_H_
#define MASKKV_TESTS_UNIT_CORE_DECODING_AUTOMATA_H_

#include <algorithm>
#include <cstdint>
#include <random>
#include <set>
#include <span>
#include <vector>

#include "core/decoding/token_automaton.h"

namespace maskkv::decoding {

inline bool Holds(std::span<const IdRange> ranges, std::int32_t id) {
  return std::ranges::any_of(
      ranges, [&](const IdRange& range) { return range.first <= id && id <= range.last; });
}

// Whether the canvas is an accepted answer and then end ids alone.
inline bool Accepts(const AutomatonParts& parts, std::span<const std::int32_t> end_ids,
                    std::span<const std::int32_t> canvas) {
  std::set<std::int32_t> states{parts.start};
  const auto accepting = [&] {
    return std::ranges::any_of(parts.accepting,
                               [&](std::int32_t state) { return states.contains(state); });
  };
  for (std::size_t i = 0; i < canvas.size(); ++i) {
    if (std::ranges::find(end_ids, canvas[i]) != end_ids.end()) {
      return accepting() && std::ranges::all_of(canvas.subspan(i), [&](std::int32_t id) {
               return std::ranges::find(end_ids, id) != end_ids.end();
             });
    }
    std::set<std::int32_t> next;
    for (const AutomatonArc& arc : parts.arcs) {
      if (states.contains(arc.from) &&
          Holds(parts.sets[static_cast<std::size_t>(arc.set)], canvas[i])) {
        next.insert(arc.to);
      }
    }
    states = std::move(next);
  }
  return accepting();
}

// Over ids 0 .. ids - 1; often with dead ends, unreachable states and nothing that is accepted.
inline AutomatonParts RandomAutomaton(std::mt19937_64& random, std::int32_t ids) {
  const auto below = [&](std::int64_t n) {
    return static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(n));
  };
  AutomatonParts parts;
  parts.states = 1 + below(6);
  parts.start = below(parts.states);
  for (int i = 1 + below(2); i > 0; --i) parts.accepting.push_back(below(parts.states));
  for (int i = 1 + below(5); i > 0; --i) {
    std::vector<IdRange>& set = parts.sets.emplace_back();
    for (std::int32_t first = below(ids); first < ids;) {
      const std::int32_t last = std::min(ids - 1, first + below(3));
      set.push_back({first, last});
      first = last + 2 + below(ids);
    }
  }
  const auto sets = static_cast<std::int64_t>(parts.sets.size());
  for (std::int64_t i = 1 + below(3 * parts.states); i > 0; --i) {
    parts.arcs.push_back({below(parts.states), below(sets), below(parts.states)});
  }
  return parts;
}

}  // namespace maskkv::decoding

#endif  // MASKKV_TESTS_UNIT_CORE_DECODING_AUTOMATA_H_
