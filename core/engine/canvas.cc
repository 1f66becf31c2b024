// SPDX-License-Identifier: Apache-2.0
#include "core/engine/canvas.h"

#include <algorithm>

#include "core/base/check.h"

namespace maskkv::engine {

Canvas::Canvas(const GenerateParams& params, std::int32_t mask_id)
    : params_(params),
      mask_id_(mask_id),
      tokens_(static_cast<std::size_t>(params.gen_length), mask_id),
      masked_(static_cast<std::size_t>(params.gen_length), 1) {
  MASKKV_CHECK(Validate(params).ok(), "parameters of a canvas were validated");
  EnterStep();
}

bool Canvas::IsStop(std::int32_t token) const {
  return std::find(params_.stop_ids.begin(), params_.stop_ids.end(), token) !=
         params_.stop_ids.end();
}

void Canvas::EnterStep() {
  const std::int64_t steps = params_.steps_per_block();
  // Steps beyond the number of masks commit nothing and would only repeat the forward.
  if (block_step_ == steps || CommitCount(params_.block_length, steps, block_step_) == 0) {
    ++block_;
    block_step_ = 0;
  }
  candidates_.clear();
  if (block_ == params_.blocks()) return;
  const std::int64_t begin = block_ * params_.block_length;
  for (std::int64_t i = begin; i < begin + params_.block_length; ++i) {
    if (masked(i)) candidates_.push_back(i);
  }
}

std::vector<Prediction> Canvas::Commit(std::span<const Prediction> predictions) {
  MASKKV_CHECK(!finished(), "a finished canvas takes no step");
  MASKKV_CHECK(predictions.size() == candidates_.size(), "a prediction for each candidate");
  const std::int64_t count =
      CommitCount(params_.block_length, params_.steps_per_block(), block_step_);
  std::vector<Prediction> chosen(predictions.begin(), predictions.end());
  std::stable_sort(chosen.begin(), chosen.end(), [](const Prediction& a, const Prediction& b) {
    return a.confidence > b.confidence;
  });
  chosen.resize(static_cast<std::size_t>(count));
  std::sort(chosen.begin(), chosen.end(),
            [](const Prediction& a, const Prediction& b) { return a.position < b.position; });
  for (const Prediction& prediction : chosen) {
    const auto index = static_cast<std::size_t>(prediction.position);
    MASKKV_CHECK(masked_[index] != 0, "only a mask is committed");
    tokens_[index] = prediction.token;
    masked_[index] = 0;
  }
  ++block_step_;
  EnterStep();
  UpdateFinish();
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
  if (block_ == params_.blocks()) finish_reason_ = FinishReason::kLength;
}

std::vector<std::int32_t> Canvas::Answer() const {
  std::vector<std::int32_t> answer;
  for (std::size_t i = 0; i < tokens_.size() && masked_[i] == 0 && !IsStop(tokens_[i]); ++i) {
    answer.push_back(tokens_[i]);
  }
  return answer;
}

void Canvas::CheckInvariants() const {
  for (std::int64_t i = 0; i < params_.gen_length; ++i) {
    const std::int64_t block = i / params_.block_length;
    MASKKV_CHECK(block >= block_ || !masked(i), "earlier blocks hold no mask");
    MASKKV_CHECK(block <= block_ || masked(i), "later blocks hold nothing but masks");
    MASKKV_CHECK(!masked(i) || tokens_[static_cast<std::size_t>(i)] == mask_id_,
                 "a masked position shows the mask id");
  }
  MASKKV_CHECK(finished() == candidates_.empty(), "a running canvas has something to predict");
}

}  // namespace maskkv::engine
