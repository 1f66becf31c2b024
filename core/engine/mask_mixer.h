// SPDX-License-Identifier: Apache-2.0
//
// ReMix (arXiv 2602.22868): a mask enters the forward as a mix of the mask's embedding and the
// expected embedding of what it was last predicted to be, so that undecided positions see each
// other's state. What the mixer remembers of a mask is its last prediction, as the most likely
// tokens and their probabilities, and whether it moved since the one before; positions are those of
// the canvas. One object a request. Not thread safe. docs/adr/0011-remix-and-growth.md.
#ifndef MASKKV_CORE_ENGINE_MASK_MIXER_H_
#define MASKKV_CORE_ENGINE_MASK_MIXER_H_

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "core/decoding/row_choice.h"
#include "core/decoding/rule.h"
#include "core/transformer/transformer.h"

namespace maskkv::engine {

// The Jensen-Shannon divergence in nats, 0 to ln 2, of two distributions that are given as tokens
// and weights; weights are divided by their sum. REQUIRES: both not empty, a positive sum, no token
// twice.
double JensenShannon(std::span<const decoding::TokenProbability> p,
                     std::span<const decoding::TokenProbability> q);

class MaskMixer {
 public:
  // REQUIRES: decoding::Validate(params) is OK.
  MaskMixer(const decoding::RuleParams& params, std::int32_t mask_id)
      : params_(params), mask_id_(mask_id) {}

  // A step was taken. masks: the positions that are still masked of those it predicted, ascending;
  // all others are forgotten. best: for each, its most likely tokens, by descending probability, at
  // most mix_top and at least one.
  void Update(std::span<const std::int64_t> masks,
              std::vector<std::vector<decoding::TokenProbability>> best);

  // What the position's embedding is made of: empty where it is the mask's alone, because nothing
  // was predicted yet, or the prediction moved by more than js_threshold, or the weight is 0.
  // Valid until the next Update.
  std::span<const transformer::WeightedToken> MixOf(std::int64_t position) const;

 private:
  struct Mask {
    std::vector<decoding::TokenProbability> best;  // of the last prediction
    std::vector<transformer::WeightedToken> mix;   // empty: not mixed
  };

  const decoding::RuleParams params_;
  const std::int32_t mask_id_;
  std::map<std::int64_t, Mask> masks_;  // by position
};

}  // namespace maskkv::engine

#endif  // MASKKV_CORE_ENGINE_MASK_MIXER_H_
