// SPDX-License-Identifier: Apache-2.0
//
// The canvas of one request: gen_length answer positions, masked or committed, and where its
// block-wise schedule stands. It decides which positions a step predicts and which predictions it
// commits (LLaDA's low-confidence remasking); it knows no model. Not thread safe.
//
// Invariants: blocks before the current one hold no mask, blocks after it nothing but masks; a
// committed token never changes; once finished nothing changes.
#ifndef MASKKV_CORE_ENGINE_CANVAS_H_
#define MASKKV_CORE_ENGINE_CANVAS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "core/engine/generate_params.h"

namespace maskkv::engine {

// What a step says about one masked answer position.
struct Prediction {
  std::int64_t position = 0;  // in the answer, 0-based
  std::int32_t token = 0;
  float confidence = 0;       // softmax(raw logits)[token]
  float log_probability = 0;  // its natural logarithm, taken before rounding; finite
};

class Canvas {
 public:
  // REQUIRES: Validate(params) is OK.
  Canvas(const GenerateParams& params, std::int32_t mask_id);

  // (gen_length) token ids, the mask id where nothing is committed.
  std::span<const std::int32_t> tokens() const { return tokens_; }
  bool masked(std::int64_t position) const {
    return masked_[static_cast<std::size_t>(position)] != 0;
  }

  // Masked positions of the current block, ascending: what the next step predicts. Empty once
  // finished.
  std::span<const std::int64_t> candidates() const { return candidates_; }

  // Number of the next step, 0-based, counted over all blocks: block * steps_per_block + step.
  std::int64_t step() const { return block_ * params_.steps_per_block() + block_step_; }

  // Commits the most confident predictions of this step (ties to the lower position) and moves on.
  // predictions: one for each candidate, in order. Returns those committed, by ascending position.
  // REQUIRES: not finished.
  std::vector<Prediction> Commit(std::span<const Prediction> predictions);

  FinishReason finish_reason() const { return finish_reason_; }
  bool finished() const { return finish_reason_ != FinishReason::kNone; }

  // The answer so far: committed tokens up to, without, the first stop id or mask.
  std::vector<std::int32_t> Answer() const;

  const GenerateParams& params() const { return params_; }
  void CheckInvariants() const;

 private:
  bool IsStop(std::int32_t token) const;
  void EnterStep();  // skips steps that commit nothing; refreshes candidates_
  void UpdateFinish();

  // Constant after construction.
  const GenerateParams params_;
  const std::int32_t mask_id_;

  std::vector<std::int32_t> tokens_;
  std::vector<char> masked_;
  std::vector<std::int64_t> candidates_;
  std::int64_t block_ = 0;
  std::int64_t block_step_ = 0;
  FinishReason finish_reason_ = FinishReason::kNone;
};

}  // namespace maskkv::engine

#endif  // MASKKV_CORE_ENGINE_CANVAS_H_
