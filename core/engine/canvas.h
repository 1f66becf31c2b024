// SPDX-License-Identifier: Apache-2.0
//
// The canvas of one request: answer positions, masked or committed, and where its block-wise
// schedule stands. It decides which positions a step predicts, and by its rule
// (core/decoding/rule.h) which predictions a step commits; it knows no model. Not thread safe.
//
// It may start with given tokens between its masks: blocks without a mask take no step, and a
// rule's quota counts the masks that a block began with.
//
// Else it may grow at its end (core/engine/growth.h): its length is no constant, positions are.
//
// Invariants: blocks before the current one hold no mask, blocks after it are as they were given;
// a given or committed token never changes; once finished nothing changes.
#ifndef MASKKV_CORE_ENGINE_CANVAS_H_
#define MASKKV_CORE_ENGINE_CANVAS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/decoding/canvas_constraint.h"
#include "core/decoding/commit_rule.h"
#include "core/decoding/prediction.h"
#include "core/engine/generate_params.h"

namespace maskkv::engine {

using decoding::Prediction;

class Canvas {
 public:
  // first_position: absolute position of canvas position 0, which keys a rule's noise.
  // given: (gen_length) token ids, the mask id where nothing is decided; empty: nothing but masks.
  // REQUIRES: Validate(params) is OK, and CheckAutomaton; nothing but masks with growth.
  Canvas(const GenerateParams& params, std::int32_t mask_id, std::int64_t first_position = 0,
         std::span<const std::int32_t> given = {});

  // (length()) token ids, the mask id where nothing is decided.
  std::span<const std::int32_t> tokens() const { return tokens_; }
  std::int64_t length() const { return static_cast<std::int64_t>(tokens_.size()); }
  bool masked(std::int64_t position) const {
    return masked_[static_cast<std::size_t>(position)] != 0;
  }

  // Masked positions of the current block, ascending: what the next step predicts. Empty once
  // finished.
  std::span<const std::int64_t> candidates() const { return candidates_; }

  // Number of the next step, 0-based, counted over all blocks: block * steps_per_block + step where
  // the rule is scheduled (later by the steps that earlier blocks took beyond their schedule), else
  // the steps taken so far.
  std::int64_t step() const;

  // Commits what the rule chooses of this step's predictions and moves on. With an automaton, what
  // is chosen is taken by descending score, each if it leaves a completion possible; the others
  // stay masked. Masks that a block's schedule so leaves are all chosen in steps beyond it.
  // predictions: one for each candidate, in order. Returns those committed, by ascending position.
  // end_certainty: EndCertainty of the same step, read if watches_end(): afterwards the canvas may
  // have grown. A canvas that is full without a stop id grows too, while it may.
  // REQUIRES: not finished.
  std::vector<Prediction> Commit(std::span<const Prediction> predictions, double end_certainty = 1);

  // Whether growth asks the next step for the probability of the end token (the first of stop_ids)
  // at the masked positions from watched_from() on.
  bool watches_end() const;
  std::int64_t watched_from() const;
  // The mean over the last positions. masked: the probability at each masked one, ascending.
  double EndCertainty(std::span<const double> masked) const;
  // Before the first commit, instead of Commit: whether the canvas has grown because its end is not
  // certain enough. Then the step is over, and the next one has its number.
  bool GrowInstead(double end_certainty);

  FinishReason finish_reason() const { return finish_reason_; }
  bool finished() const { return finish_reason_ != FinishReason::kNone; }

  // The answer so far: decided tokens up to, without, the first mask and, unless
  // params().whole_canvas, the first stop id.
  std::vector<std::int32_t> Answer() const;

  // What the automaton leaves possible of the canvas; null without one.
  const decoding::CanvasConstraint* constraint() const {
    return constraint_ ? &*constraint_ : nullptr;
  }

  const GenerateParams& params() const { return params_; }
  std::int64_t first_position() const { return first_position_; }
  void CheckInvariants() const;

 private:
  bool IsStop(std::int32_t token) const;  // that ends the answer
  decoding::StepContext Context() const;
  // The block's schedule is over and the automaton has left masks behind.
  bool overtime() const { return scheduled_ && block_step_ >= params_.steps_per_block(); }
  std::vector<std::size_t> Choose(std::span<const Prediction> predictions);
  void EnterBlock();  // the first from block_ on that holds a mask
  void EnterStep();   // skips steps that commit nothing; refreshes candidates_
  void GatherCandidates();
  void UpdateFinish();
  bool may_grow() const;
  bool GrowsAfter(std::span<const Prediction> predictions, double end_certainty) const;
  void Grow();
  std::int64_t blocks() const { return length() / params_.block_length; }

  // Constant after construction.
  const GenerateParams params_;
  const std::int32_t mask_id_;
  const std::int64_t first_position_;
  const bool scheduled_;

  std::unique_ptr<decoding::CommitRule> rule_;
  std::vector<std::int32_t> tokens_;
  std::vector<char> masked_;
  std::vector<char> was_masked_;  // at the start, or since it grew
  std::vector<std::int64_t> candidates_;
  std::int64_t block_ = 0;
  std::int64_t block_step_ = 0;
  std::int64_t block_masks_ = 0;  // when the block began
  std::int64_t steps_taken_ = 0;
  std::int64_t late_steps_ = 0;  // beyond the schedules of earlier blocks
  std::optional<decoding::CanvasConstraint> constraint_;
  bool settled_ = false;  // its length before the first commit
  FinishReason finish_reason_ = FinishReason::kNone;
};

}  // namespace maskkv::engine

#endif  // MASKKV_CORE_ENGINE_CANVAS_H_
