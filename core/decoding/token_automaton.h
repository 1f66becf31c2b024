// SPDX-License-Identifier: Apache-2.0
//
// A finite automaton over token ids: which answers a request allows (docs/adr/0015). States are
// numbers, arcs carry sets of ids; several arcs of a state may take the same id, so it need not be
// deterministic. An answer is accepted if some path from the start takes its tokens, one an arc,
// and ends in an accepting state. It knows neither model nor canvas (canvas_constraint.h).
//
// Immutable once made, shared by the requests that use it; thread safe.
#ifndef MASKKV_CORE_DECODING_TOKEN_AUTOMATON_H_
#define MASKKV_CORE_DECODING_TOKEN_AUTOMATON_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace maskkv::decoding {

// Ids first .. last, both included.
struct IdRange {
  std::int32_t first = 0;
  std::int32_t last = 0;

  bool operator==(const IdRange&) const = default;
};

struct AutomatonArc {
  std::int32_t from = 0;
  std::int32_t set = 0;  // index into AutomatonParts::sets
  std::int32_t to = 0;

  bool operator==(const AutomatonArc&) const = default;
};

// An automaton as somebody hands it in: nothing is checked yet.
struct AutomatonParts {
  std::int64_t states = 0;
  std::int32_t start = 0;
  std::vector<std::int32_t> accepting = {};
  std::vector<std::vector<IdRange>> sets = {};
  std::vector<AutomatonArc> arcs = {};  // in any order
};

class TokenAutomaton {
 public:
  static constexpr std::int64_t kMaxStates = std::int64_t{1} << 16;
  static constexpr std::int64_t kMaxSets = std::int64_t{1} << 16;
  static constexpr std::int64_t kMaxRanges = std::int64_t{1} << 22;  // of all sets together
  static constexpr std::int64_t kMaxArcs = std::int64_t{1} << 20;

  // Errors: INVALID_ARGUMENT that names the part: sizes beyond the bounds; states, sets or ids that
  // are not there; a set without ids, or whose ranges do not ascend with a gap between them.
  static absl::StatusOr<std::shared_ptr<const TokenAutomaton>> Make(AutomatonParts parts);

  std::int64_t states() const { return std::ssize(accepts_); }
  std::int32_t start() const { return start_; }
  bool accepts(std::int32_t state) const { return accepts_[static_cast<std::size_t>(state)] != 0; }
  std::int64_t sets() const { return std::ssize(sets_); }
  std::span<const IdRange> ids(std::int32_t set) const {
    return sets_[static_cast<std::size_t>(set)];
  }
  std::int64_t arcs() const { return std::ssize(arcs_); }
  // By ascending (set, to), each once.
  std::span<const AutomatonArc> arcs_from(std::int32_t state) const;

  // Whether each set holds the id: sets() numbers, 0 or 1.
  std::vector<char> SetsWith(std::int32_t id) const;

  // Tokens of the shortest accepted answer; nullopt if none is accepted.
  std::optional<std::int64_t> ShortestAnswer() const;

 private:
  explicit TokenAutomaton(AutomatonParts parts);

  std::int32_t start_;
  std::vector<char> accepts_;  // by state
  std::vector<std::vector<IdRange>> sets_;
  std::vector<AutomatonArc> arcs_;     // by state
  std::vector<std::size_t> first_of_;  // (states + 1): of each state's arcs
};

}  // namespace maskkv::decoding

#endif  // MASKKV_CORE_DECODING_TOKEN_AUTOMATON_H_
