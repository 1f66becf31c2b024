// SPDX-License-Identifier: Apache-2.0
//
// How one request chooses tokens in one step: streamed through the vocabulary head where its rule
// reads nothing but the raw probability of the choice, from whole rows of logits otherwise
// (core/decoding/row_choice.h). Ids that the request's automaton does not allow at a row's position
// are removed before anything else. A guided request (GenerateParams::cfg_scale) chooses from whole
// rows too: a row's logits and those of its twin behind the masked prompt give the logits it
// chooses from (core/decoding/guidance.h); so does one whose canvas' end is watched
// (core/engine/growth.h). Holds what the head writes; lives as long as the step.
//
// Rows are numbered as the caller likes, 0 .. rows - 1. Not thread safe, but different rows may be
// predicted by different threads.
#ifndef MASKKV_CORE_ENGINE_TOKEN_SAMPLER_H_
#define MASKKV_CORE_ENGINE_TOKEN_SAMPLER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "core/decoding/row_choice.h"
#include "core/engine/canvas.h"
#include "core/engine/constraint.h"
#include "kernels/head/token_reducer.h"
#include "kernels/head/vocab_head.h"

namespace maskkv::engine {

class TokenSampler {
 public:
  // vocabulary: ids that the head projects.
  TokenSampler(const Canvas& canvas, std::int32_t mask_id, std::int64_t rows,
               std::int64_t vocabulary);
  ~TokenSampler();
  TokenSampler(const TokenSampler&) = delete;
  TokenSampler& operator=(const TokenSampler&) = delete;

  // What the head needs to serve row `row` with hidden state `hidden` (normed), whose prediction is
  // that of the absolute position `position`, a mask of the canvas.
  kernels::HeadRow Row(std::int64_t row, const float* hidden, std::int64_t position);

  // Of a guided request: what the head needs to serve the row's twin.
  kernels::HeadRow UnconditionalRow(std::int64_t row, const float* hidden);

  // After the head has run: what the row says about canvas position `answer`; nullopt where its
  // logits are no numbers.
  std::optional<Prediction> Predict(std::int64_t row, std::int64_t answer);

  // All that Predict found of the row, which told numbers. REQUIRES: whole_rows().
  const decoding::RowChoice& choice(std::int64_t row) const {
    return row_choices_[static_cast<std::size_t>(row)];
  }
  bool whole_rows() const { return whole_rows_; }

 private:
  class RowCollector;

  std::optional<Prediction> PredictStreamed(std::int64_t row, std::int64_t answer) const;
  std::optional<Prediction> PredictWhole(std::int64_t row, std::int64_t answer);
  decoding::RowChoice Choose(std::int64_t row) const;

  const Canvas& canvas_;
  const std::vector<std::int32_t> forbidden_;  // the reducers refer to it
  const std::int64_t rows_;
  const std::int64_t vocabulary_;
  const bool whole_rows_;
  const kernels::ArgmaxReducer argmax_;
  const kernels::GumbelReducer gumbel_;
  std::optional<ConstrainedReducers> constrained_;  // around the above and collectors
  std::vector<kernels::TokenChoice> choices_;       // streamed: of each row
  // Else: of each row; if guided, then of each twin.
  std::vector<std::unique_ptr<RowCollector>> collectors_;
  std::vector<float> logits_;                     // (collectors, vocabulary)
  std::vector<decoding::RowChoice> row_choices_;  // of each row
};

}  // namespace maskkv::engine

#endif  // MASKKV_CORE_ENGINE_TOKEN_SAMPLER_H_
