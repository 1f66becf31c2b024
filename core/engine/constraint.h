// SPDX-License-Identifier: Apache-2.0
//
// A request's automaton (GenerateParams::automaton) between core/decoding and the engine: whether
// model and canvas can follow it, and how its rows of logits lose the ids that it does not allow.
// docs/adr/0015-constrained-output.md.
#ifndef MASKKV_CORE_ENGINE_CONSTRAINT_H_
#define MASKKV_CORE_ENGINE_CONSTRAINT_H_

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "core/decoding/canvas_constraint.h"
#include "core/engine/generate_params.h"
#include "kernels/head/vocab_head.h"

namespace maskkv::engine {

// Positions x (states + arcs) that a request may cost.
inline constexpr std::int64_t kMaxConstraintWork = std::int64_t{1} << 26;

// The ids that may follow an accepted answer: stop ids that are not suppressed; none where the
// answer is the whole canvas.
std::vector<std::int32_t> EndIds(const GenerateParams& params);

// What the automaton leaves possible on a canvas. REQUIRES: there is one. tokens, masked: (length).
decoding::CanvasConstraint MakeConstraint(const GenerateParams& params,
                                          std::span<const std::int32_t> tokens,
                                          std::span<const char> masked);

// OK without an automaton, and where the canvas has a completion. given: (gen_length) what it
// starts with, the mask id where nothing is decided; empty: nothing but masks.
// Errors: INVALID_ARGUMENT: the automaton names the mask id, a stop id or an id beyond the
// vocabulary, costs more than kMaxConstraintWork, or accepts nothing that fits the canvas.
absl::Status CheckAutomaton(const GenerateParams& params, std::int32_t mask_id,
                            std::int64_t vocabulary, std::span<const std::int32_t> given = {});

// The reducers of one request's rows in one step, each around `inner`: the same reduction over the
// allowed ids of a position alone. Not thread safe; what Of gives is.
class ConstrainedReducers {
 public:
  // Both are borrowed.
  ConstrainedReducers(const decoding::CanvasConstraint& constraint, std::int64_t vocabulary)
      : constraint_(constraint), vocabulary_(vocabulary) {}

  // Removes (sets to -infinity) what the masked position may not become and hands the rest to
  // `inner`, which outlives this.
  const kernels::LogitReducer& Of(std::int64_t position, const kernels::LogitReducer& inner);

 private:
  class Reducer;

  const decoding::CanvasConstraint& constraint_;
  const std::int64_t vocabulary_;
  // Positions with the same allowed sets share their list of forbidden ids.
  std::map<std::vector<std::int32_t>, std::vector<decoding::IdRange>> forbidden_;
  std::vector<std::unique_ptr<kernels::LogitReducer>> reducers_;
};

}  // namespace maskkv::engine

#endif  // MASKKV_CORE_ENGINE_CONSTRAINT_H_
