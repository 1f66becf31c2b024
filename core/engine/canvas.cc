// SPDX-License-Identifier: Apache-2.0
#include "core/engine/canvas.h"

#include <algorithm>
#include <numeric>

#include "core/base/check.h"
#include "core/engine/constraint.h"

namespace maskkv::engine {

Canvas::Canvas(const GenerateParams& params, std::int32_t mask_id, std::int64_t first_position,
               std::span<const std::int32_t> given)
    : params_(params),
      mask_id_(mask_id),
      first_position_(first_position),
      scheduled_(decoding::IsScheduled(params.rule.rule)),
      rule_(decoding::MakeCommitRule(params.rule)),
      tokens_(static_cast<std::size_t>(params.gen_length), mask_id) {
  MASKKV_CHECK(Validate(params).ok(), "parameters of a canvas were validated");
  if (!given.empty()) {
    MASKKV_CHECK(given.size() == tokens_.size(), "a given token or a mask a position");
    tokens_.assign(given.begin(), given.end());
  }
  for (const std::int32_t token : tokens_) masked_.push_back(token == mask_id ? 1 : 0);
  was_masked_ = masked_;
  if (params.automaton != nullptr) {
    constraint_.emplace(MakeConstraint(params, tokens_, masked_));
    MASKKV_CHECK(constraint_->possible(), "a canvas can be completed");
  }
  EnterBlock();
  EnterStep();
  UpdateFinish();
}

bool Canvas::IsStop(std::int32_t token) const {
  if (params_.whole_canvas) return false;
  return std::find(params_.stop_ids.begin(), params_.stop_ids.end(), token) !=
         params_.stop_ids.end();
}

std::int64_t Canvas::step() const {
  if (!scheduled_) return steps_taken_;
  return block_ * params_.steps_per_block() + block_step_ + late_steps_;
}

decoding::StepContext Canvas::Context() const {
  return {.step = step(),
          .block_step = block_step_,
          .block_steps = scheduled_ ? params_.steps_per_block() : 0,
          .block_masks = block_masks_,
          .first_position = first_position_,
          .seed = params_.seed};
}

void Canvas::GatherCandidates() {
  candidates_.clear();
  if (block_ == blocks()) return;
  const std::int64_t begin = block_ * params_.block_length;
  for (std::int64_t i = begin; i < begin + params_.block_length; ++i) {
    if (masked(i)) candidates_.push_back(i);
  }
}

void Canvas::EnterBlock() {
  if (overtime()) late_steps_ += block_step_ - params_.steps_per_block();
  block_step_ = 0;
  GatherCandidates();
  while (candidates_.empty() && block_ < blocks()) {
    ++block_;
    GatherCandidates();
  }
  block_masks_ = static_cast<std::int64_t>(candidates_.size());
}

void Canvas::EnterStep() {
  while (!candidates_.empty() && !overtime() &&
         rule_->Skips(Context(), static_cast<std::int64_t>(candidates_.size()))) {
    ++block_step_;
  }
  MASKKV_CHECK(candidates_.empty() || !overtime() || constraint_,
               "a schedule leaves no mask behind");
}

std::vector<std::size_t> Canvas::Choose(std::span<const Prediction> predictions) {
  std::vector<std::size_t> chosen(predictions.size());
  if (overtime()) {
    std::iota(chosen.begin(), chosen.end(), std::size_t{0});
  } else {
    chosen = rule_->Choose(Context(), predictions);
  }
  if (constraint_) chosen = constraint_->DecideThoseThatFit(predictions, std::move(chosen));
  return chosen;
}

std::vector<Prediction> Canvas::Commit(std::span<const Prediction> predictions,
                                       double end_certainty) {
  MASKKV_CHECK(!finished(), "a finished canvas takes no step");
  MASKKV_CHECK(predictions.size() == candidates_.size(), "a prediction for each candidate");
  std::vector<Prediction> chosen;
  for (const std::size_t i : Choose(predictions)) {
    const auto index = static_cast<std::size_t>(predictions[i].position);
    MASKKV_CHECK(masked_[index] != 0, "only a mask is committed");
    tokens_[index] = predictions[i].token;
    masked_[index] = 0;
    chosen.push_back(predictions[i]);
  }
  settled_ = true;
  ++block_step_;
  ++steps_taken_;
  GatherCandidates();
  if (candidates_.empty()) EnterBlock();
  EnterStep();
  UpdateFinish();
  if (GrowsAfter(predictions, end_certainty)) Grow();
  return chosen;
}

void Canvas::UpdateFinish() {
  if (!params_.ignore_eos) {
    for (std::size_t i = 0; i < tokens_.size() && masked_[i] == 0; ++i) {
      if (!IsStop(tokens_[i])) continue;
      finish_reason_ = FinishReason::kStop;
      candidates_.clear();
      return;
    }
  }
  if (block_ < blocks()) return;
  if (!may_grow()) {
    finish_reason_ = FinishReason::kLength;
    return;
  }
  Grow();
  EnterBlock();
  EnterStep();
}

std::vector<std::int32_t> Canvas::Answer() const {
  std::vector<std::int32_t> answer;
  for (std::size_t i = 0; i < tokens_.size() && masked_[i] == 0 && !IsStop(tokens_[i]); ++i) {
    answer.push_back(tokens_[i]);
  }
  return answer;
}

void Canvas::CheckInvariants() const {
  for (std::int64_t i = 0; i < length(); ++i) {
    const std::int64_t block = i / params_.block_length;
    MASKKV_CHECK(block >= block_ || !masked(i), "earlier blocks hold no mask");
    const auto index = static_cast<std::size_t>(i);
    MASKKV_CHECK(block <= block_ || masked_[index] == was_masked_[index],
                 "later blocks are as they were given");
    MASKKV_CHECK(was_masked_[index] != 0 || !masked(i), "a given token stays");
    MASKKV_CHECK(!masked(i) || tokens_[index] == mask_id_, "a masked position shows the mask id");
  }
  MASKKV_CHECK(!constraint_ || constraint_->length() == length(), "a constraint of all positions");
  MASKKV_CHECK(length() <= params_.longest() && length() % params_.block_length == 0,
               "a canvas grows by blocks, up to its limit");
  MASKKV_CHECK(finished() == candidates_.empty(), "a running canvas has something to predict");
}

}  // namespace maskkv::engine
