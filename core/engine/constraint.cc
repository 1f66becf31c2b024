// SPDX-License-Identifier: Apache-2.0
#include "core/engine/constraint.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <string>

#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"

namespace maskkv::engine {
namespace {

using decoding::CanvasConstraint;
using decoding::IdRange;
using decoding::TokenAutomaton;

absl::Status CheckSetsLack(const TokenAutomaton& automaton, std::int32_t id, const char* what) {
  const std::vector<char> with = automaton.SetsWith(id);
  const auto set = std::ranges::find(with, 1);
  if (set == with.end()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat(
      "automaton: set %d: expected no %s, found id %d", set - with.begin(), what, id));
}

absl::Status CheckIds(const TokenAutomaton& automaton, const GenerateParams& params,
                      std::int32_t mask_id, std::int64_t vocabulary) {
  for (std::int32_t set = 0; set < automaton.sets(); ++set) {
    const std::int32_t last = automaton.ids(set).back().last;
    if (last < vocabulary) continue;
    return absl::InvalidArgumentError(absl::StrFormat(
        "automaton: set %d: expected ids from 0 to %d, found %d", set, vocabulary - 1, last));
  }
  MASKKV_RETURN_IF_ERROR(CheckSetsLack(automaton, mask_id, "mask id"));
  for (const std::int32_t id : params.stop_ids) {
    MASKKV_RETURN_IF_ERROR(CheckSetsLack(automaton, id, "end token"));
  }
  return absl::OkStatus();
}

// The ids of 0 .. vocabulary - 1 that are in no range.
std::vector<IdRange> Complement(std::span<const IdRange> ranges, std::int64_t vocabulary) {
  std::vector<IdRange> others;
  std::int32_t next = 0;
  for (const IdRange& range : ranges) {
    if (next < range.first) others.push_back({next, range.first - 1});
    next = range.last + 1;
  }
  if (next < vocabulary) others.push_back({next, static_cast<std::int32_t>(vocabulary - 1)});
  return others;
}

}  // namespace

std::vector<std::int32_t> EndIds(const GenerateParams& params) {
  if (params.whole_canvas) return {};
  std::vector<std::int32_t> ids = params.stop_ids;
  if (params.suppress_eos) std::erase(ids, params.stop_ids.front());
  return ids;
}

CanvasConstraint MakeConstraint(const GenerateParams& params, std::span<const std::int32_t> tokens,
                                std::span<const char> masked) {
  std::vector<std::int32_t> canvas(tokens.begin(), tokens.end());
  for (std::size_t i = 0; i < canvas.size(); ++i) {
    if (masked[i] != 0) canvas[i] = CanvasConstraint::kMask;
  }
  return {params.automaton, EndIds(params), canvas};
}

absl::Status CheckAutomaton(const GenerateParams& params, std::int32_t mask_id,
                            std::int64_t vocabulary, std::span<const std::int32_t> given) {
  if (params.automaton == nullptr) return absl::OkStatus();
  const TokenAutomaton& automaton = *params.automaton;
  MASKKV_RETURN_IF_ERROR(CheckIds(automaton, params, mask_id, vocabulary));
  const std::int64_t most = kMaxConstraintWork / params.gen_length;
  if (automaton.states() + automaton.arcs() > most) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "automaton: expected at most %d states and arcs with gen_length %d, found %d", most,
        params.gen_length, automaton.states() + automaton.arcs()));
  }
  std::vector<std::int32_t> canvas(given.begin(), given.end());
  canvas.resize(static_cast<std::size_t>(params.gen_length), mask_id);
  const bool only_masks = std::ranges::count(canvas, mask_id) == params.gen_length;
  std::ranges::replace(canvas, mask_id, CanvasConstraint::kMask);
  if (CanvasConstraint(params.automaton, EndIds(params), canvas).possible()) {
    return absl::OkStatus();
  }
  if (!only_masks) {
    return absl::InvalidArgumentError(
        "automaton: expected an accepted answer that holds the given tokens, found none");
  }
  const std::optional<std::int64_t> shortest = automaton.ShortestAnswer();
  if (!shortest) {
    return absl::InvalidArgumentError(
        "automaton: expected one that accepts an answer, found none accepted");
  }
  if (*shortest > params.gen_length) {
    return absl::InvalidArgumentError(
        absl::StrFormat("automaton: expected an accepted answer of at most gen_length %d tokens, "
                        "found that the shortest has %d",
                        params.gen_length, *shortest));
  }
  return absl::InvalidArgumentError(absl::StrFormat(
      "automaton: expected an accepted answer of exactly gen_length %d tokens where no end token "
      "may follow it, found none",
      params.gen_length));
}

class ConstrainedReducers::Reducer : public kernels::LogitReducer {
 public:
  Reducer(std::span<const IdRange> forbidden, const kernels::LogitReducer& inner)
      : forbidden_(forbidden), inner_(inner) {}

  std::size_t state_bytes() const override { return inner_.state_bytes(); }
  void Init(void* state) const override { inner_.Init(state); }
  void Consume(std::int64_t tag, std::int32_t first_id, std::span<float> logits,
               void* state) const override {
    const std::int64_t end = first_id + std::ssize(logits);
    auto range = std::ranges::lower_bound(forbidden_, first_id, {}, &IdRange::last);
    for (; range != forbidden_.end() && range->first < end; ++range) {
      const auto begin = static_cast<std::size_t>(std::max(range->first, first_id) - first_id);
      const std::int64_t last = std::min(std::int64_t{range->last}, end - 1) - first_id;
      std::ranges::fill(logits.subspan(begin, static_cast<std::size_t>(last) + 1 - begin),
                        -std::numeric_limits<float>::infinity());
    }
    inner_.Consume(tag, first_id, logits, state);
  }
  void Merge(const void* later, void* into) const override { inner_.Merge(later, into); }

 private:
  const std::span<const IdRange> forbidden_;
  const kernels::LogitReducer& inner_;
};

const kernels::LogitReducer& ConstrainedReducers::Of(std::int64_t position,
                                                     const kernels::LogitReducer& inner) {
  std::vector<std::int32_t> sets = constraint_.AllowedSets(position);
  auto known = forbidden_.find(sets);
  if (known == forbidden_.end()) {
    std::vector<IdRange> others = Complement(constraint_.IdsOf(sets, vocabulary_), vocabulary_);
    known = forbidden_.emplace(std::move(sets), std::move(others)).first;
  }
  return *reducers_.emplace_back(std::make_unique<Reducer>(known->second, inner));
}

}  // namespace maskkv::engine
