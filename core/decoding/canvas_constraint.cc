// SPDX-License-Identifier: Apache-2.0
#include "core/decoding/canvas_constraint.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "core/base/check.h"

namespace maskkv::decoding {
namespace {

constexpr std::size_t kBits = 64;

void Insert(std::span<std::uint64_t> words, std::int32_t state) {
  const auto bit = static_cast<std::size_t>(state);
  words[bit / kBits] |= std::uint64_t{1} << (bit % kBits);
}

}  // namespace

template <typename F>
void CanvasConstraint::ForEachArc(std::int32_t state, const Label& label, const F& f) const {
  if (state != after_end()) {
    for (const AutomatonArc& arc : automaton_->arcs_from(state)) {
      if (label.Has(arc.set) && !f(arc.set, arc.to)) return;
    }
  }
  if (label.end && MayEndIn(state)) {
    f(static_cast<std::int32_t>(automaton_->sets()), after_end());
  }
}

template <typename F>
void CanvasConstraint::ForEachState(std::int64_t position, const F& f) const {
  const std::size_t first = static_cast<std::size_t>(position) * words_;
  for (std::size_t i = 0; i < words_; ++i) {
    for (std::uint64_t word = live_[first + i]; word != 0; word &= word - 1) {
      f(static_cast<std::int32_t>(i * kBits + static_cast<std::size_t>(std::countr_zero(word))));
    }
  }
}

CanvasConstraint::CanvasConstraint(std::shared_ptr<const TokenAutomaton> automaton,
                                   std::vector<std::int32_t> end_ids,
                                   std::span<const std::int32_t> canvas)
    : automaton_(std::move(automaton)),
      end_ids_(std::move(end_ids)),
      canvas_(canvas.begin(), canvas.end()),
      words_(static_cast<std::size_t>(automaton_->states()) / kBits + 1),
      live_((canvas.size() + 1) * words_, 0) {
  // What the start reaches, then what reaches acceptance of that.
  std::vector<Label> labels;
  Insert(At(0), automaton_->start());
  for (std::int64_t i = 0; i < length(); ++i) {
    labels.push_back(LabelOf(canvas_[static_cast<std::size_t>(i)]));
    std::ranges::copy(Successors(i, labels.back()), At(i + 1).begin());
  }
  std::vector<std::uint64_t> last(words_, 0);
  ForEachState(length(), [&](std::int32_t state) {
    if (MayEndIn(state)) Insert(last, state);
  });
  std::ranges::copy(last, At(length()).begin());
  for (std::int64_t i = length() - 1; i >= 0; --i) Prune(i, labels[static_cast<std::size_t>(i)]);
  possible_ = Has(0, automaton_->start());
}

CanvasConstraint::Label CanvasConstraint::LabelOf(std::int32_t token) const {
  Label label;
  label.mask = token == kMask;
  if (label.mask) {
    label.end = !end_ids_.empty();
  } else if (std::ranges::find(end_ids_, token) != end_ids_.end()) {
    label.end = true;
  } else {
    label.sets = automaton_->SetsWith(token);
  }
  return label;
}

CanvasConstraint::Words CanvasConstraint::At(std::int64_t position) {
  return std::span(live_).subspan(static_cast<std::size_t>(position) * words_, words_);
}

bool CanvasConstraint::Has(std::int64_t position, std::int32_t state) const {
  const auto bit = static_cast<std::size_t>(state);
  const std::uint64_t word = live_[static_cast<std::size_t>(position) * words_ + bit / kBits];
  return (word >> (bit % kBits) & 1) != 0;
}

std::vector<std::uint64_t> CanvasConstraint::Successors(std::int64_t position,
                                                        const Label& label) const {
  std::vector<std::uint64_t> next(words_, 0);
  ForEachState(position, [&](std::int32_t state) {
    ForEachArc(state, label, [&](std::int32_t, std::int32_t to) {
      Insert(next, to);
      return true;
    });
  });
  return next;
}

bool CanvasConstraint::Prune(std::int64_t position, const Label& label) {
  std::vector<std::uint64_t> kept(words_, 0);
  ForEachState(position, [&](std::int32_t state) {
    ForEachArc(state, label, [&](std::int32_t, std::int32_t to) {
      const bool leads_on = Has(position + 1, to);
      if (leads_on) Insert(kept, state);
      return !leads_on;
    });
  });
  const Words states = At(position);
  const bool removed = !std::ranges::equal(states, kept);
  std::ranges::copy(kept, states.begin());
  return removed;
}

std::vector<std::int32_t> CanvasConstraint::AllowedSets(std::int64_t position) const {
  MASKKV_CHECK(possible_ && canvas_[static_cast<std::size_t>(position)] == kMask,
               "a mask of a canvas that can be completed");
  std::vector<char> allowed(static_cast<std::size_t>(automaton_->sets()) + 1, 0);
  const Label label = LabelOf(kMask);
  ForEachState(position, [&](std::int32_t state) {
    ForEachArc(state, label, [&](std::int32_t set, std::int32_t to) {
      if (Has(position + 1, to)) allowed[static_cast<std::size_t>(set)] = 1;
      return true;
    });
  });
  std::vector<std::int32_t> sets;
  for (std::size_t i = 0; i < allowed.size(); ++i) {
    if (allowed[i] != 0) sets.push_back(static_cast<std::int32_t>(i));
  }
  return sets;
}

std::vector<IdRange> CanvasConstraint::IdsOf(std::span<const std::int32_t> sets,
                                             std::int64_t vocabulary) const {
  // How many ranges hold an id, as differences from the id before it.
  std::vector<std::int32_t> steps(static_cast<std::size_t>(vocabulary) + 1, 0);
  const auto add = [&](const IdRange& range) {
    if (range.first >= vocabulary) return;
    ++steps[static_cast<std::size_t>(range.first)];
    --steps[static_cast<std::size_t>(std::min(std::int64_t{range.last} + 1, vocabulary))];
  };
  for (const std::int32_t set : sets) {
    if (set < automaton_->sets()) {
      std::ranges::for_each(automaton_->ids(set), add);
    } else {
      for (const std::int32_t id : end_ids_) add({id, id});
    }
  }
  std::vector<IdRange> ranges;
  std::int32_t holding = 0;
  for (std::int32_t id = 0; id < vocabulary; ++id) {
    const bool before = holding > 0;
    holding += steps[static_cast<std::size_t>(id)];
    if (holding == 0) continue;
    if (!before) ranges.push_back({id, id});
    ranges.back().last = id;
  }
  return ranges;
}

bool CanvasConstraint::Decide(std::int64_t position, std::int32_t token) {
  std::int32_t& decided = canvas_[static_cast<std::size_t>(position)];
  MASKKV_CHECK(possible_ && decided == kMask, "a mask of a canvas that can be completed");
  const Label label = LabelOf(token);
  std::vector<std::uint64_t> next = Successors(position, label);
  const auto meet = [&](std::int64_t at) {  // whether any is left, and whether any was removed
    bool any = false, removed = false;
    const Words states = At(at);
    for (std::size_t i = 0; i < words_; ++i) {
      next[i] &= states[i];
      any = any || next[i] != 0;
      removed = removed || next[i] != states[i];
    }
    return std::pair(any, removed);
  };
  auto [any, removed] = meet(position + 1);
  if (!any) return false;
  decided = token;
  // To the right every state that is still reached leads to acceptance as before, to the left every
  // one that still leads on is reached as before.
  for (std::int64_t i = position + 1; removed; ++i) {
    std::ranges::copy(next, At(i).begin());
    if (i == length()) break;
    next = Successors(i, LabelOf(canvas_[static_cast<std::size_t>(i)]));
    removed = meet(i + 1).second;
  }
  removed = Prune(position, label);
  for (std::int64_t i = position - 1; removed && i >= 0; --i) {
    removed = Prune(i, LabelOf(canvas_[static_cast<std::size_t>(i)]));
  }
  return true;
}

std::vector<std::size_t> CanvasConstraint::DecideThoseThatFit(
    std::span<const Prediction> predictions, std::vector<std::size_t> chosen) {
  std::ranges::stable_sort(chosen, [&](std::size_t a, std::size_t b) {
    return predictions[a].score > predictions[b].score;
  });
  std::erase_if(chosen, [&](std::size_t i) {
    return !Decide(predictions[i].position, predictions[i].token);
  });
  std::ranges::sort(chosen);
  return chosen;
}

}  // namespace maskkv::decoding
