// SPDX-License-Identifier: Apache-2.0
//
// What a token automaton leaves possible on a canvas whose positions are decided in any order. A
// completion of the canvas is an accepted answer followed by end ids up to the canvas' last
// position. For each position this keeps the states that lie on a path of some completion; from
// them follow the ids that a mask may become, and whether a decision keeps a completion possible.
//
// Cost: O(length x (states + arcs)) to make; a decision updates positions to both sides of it as
// far as they change. Memory: a bit a position and state. A function of automaton and decisions
// alone. Not thread safe.
#ifndef MASKKV_CORE_DECODING_CANVAS_CONSTRAINT_H_
#define MASKKV_CORE_DECODING_CANVAS_CONSTRAINT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/decoding/prediction.h"
#include "core/decoding/token_automaton.h"

namespace maskkv::decoding {

class CanvasConstraint {
 public:
  // What stands for a mask in `canvas`.
  static constexpr std::int32_t kMask = -1;

  // automaton: not null. end_ids: the ids that may follow an accepted answer, in none of its sets;
  // without any the answer fills the canvas. canvas: an id or kMask for each position.
  CanvasConstraint(std::shared_ptr<const TokenAutomaton> automaton,
                   std::vector<std::int32_t> end_ids, std::span<const std::int32_t> canvas);

  // Whether the canvas has a completion. Once true it stays true.
  bool possible() const { return possible_; }

  std::int64_t length() const { return std::ssize(canvas_); }

  // The sets whose ids the masked position may become, ascending; automaton().sets() stands for the
  // end ids. Not empty. REQUIRES: possible().
  std::vector<std::int32_t> AllowedSets(std::int64_t position) const;

  // The ids below `vocabulary` of sets that AllowedSets gave, as ascending ranges with gaps between
  // them. O(ranges + vocabulary).
  std::vector<IdRange> IdsOf(std::span<const std::int32_t> sets, std::int64_t vocabulary) const;

  // Decides the masked position if a completion with this token there exists; returns whether it
  // does. REQUIRES: possible().
  bool Decide(std::int64_t position, std::int32_t token);

  // Decides predictions[i] for i in `chosen`, by descending score (ties: lower position), each if
  // it fits those before it. Returns the indices of those that do, ascending; at least one if there
  // are any and each token is allowed at its position now. REQUIRES: possible().
  std::vector<std::size_t> DecideThoseThatFit(std::span<const Prediction> predictions,
                                              std::vector<std::size_t> chosen);

  const TokenAutomaton& automaton() const { return *automaton_; }

 private:
  // Which arcs a position may take.
  struct Label {
    bool mask = false;
    bool end = false;             // end ids
    std::vector<char> sets = {};  // by set; empty: all of a mask, none of an end id
    bool Has(std::int32_t set) const {
      return mask || (!sets.empty() && sets[static_cast<std::size_t>(set)] != 0);
    }
  };
  using Words = std::span<std::uint64_t>;

  Label LabelOf(std::int32_t token) const;
  // The states before canvas position `position`; length() is the end.
  Words At(std::int64_t position);
  bool Has(std::int64_t position, std::int32_t state) const;
  std::int32_t after_end() const { return static_cast<std::int32_t>(automaton_->states()); }
  bool MayEndIn(std::int32_t state) const {
    return state == after_end() || automaton_->accepts(state);
  }
  // Calls f(set, to) for each arc of `state` that the label allows, until it returns false; the set
  // of end ids is automaton().sets().
  template <typename F>
  void ForEachArc(std::int32_t state, const Label& label, const F& f) const;
  template <typename F>
  void ForEachState(std::int64_t position, const F& f) const;
  // Successors of the states before `position`.
  std::vector<std::uint64_t> Successors(std::int64_t position, const Label& label) const;
  // Removes states before `position` without an arc into those after it. Returns whether any was.
  bool Prune(std::int64_t position, const Label& label);

  std::shared_ptr<const TokenAutomaton> automaton_;
  std::vector<std::int32_t> end_ids_;
  std::vector<std::int32_t> canvas_;
  std::size_t words_;                // of a position's states, after_end() included
  std::vector<std::uint64_t> live_;  // (length + 1, words)
  bool possible_ = false;
};

}  // namespace maskkv::decoding

#endif  // MASKKV_CORE_DECODING_CANVAS_CONSTRAINT_H_
