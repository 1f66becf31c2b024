// SPDX-License-Identifier: Apache-2.0
//
// The choice of a token from a whole row of logits, for rules whose score cannot be had while the
// vocabulary streams by: filtered probabilities, margins, entropies. Rules that read the raw
// probability of the arg-max never need it (kernels/head/token_reducer.h). Pure, thread safe.
//
// In this order, as Dream's published sampler does: forbidden ids are removed; logits / temperature
// (temperature > 0); top-p; top-k. The token is the arg-max of the raw logits that are left
// (temperature 0), or of logit + temperature * Gumbel noise over them, which samples their softmax.
#ifndef MASKKV_CORE_DECODING_ROW_CHOICE_H_
#define MASKKV_CORE_DECODING_ROW_CHOICE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "core/decoding/prediction.h"
#include "core/decoding/rule.h"

namespace maskkv::decoding {

// How one request chooses in one step.
struct RowSampling {
  RuleParams rule = {};
  double temperature = 0;
  std::uint64_t seed = 0;
  std::uint32_t step = 0;                        // of the noise
  std::span<const std::int32_t> forbidden = {};  // ascending ids
  std::int64_t keep_best = 0;                    // how many best tokens to return beside the choice
  std::int32_t watched = -1;                     // an id whose probability is told, -1: none
};

struct TokenProbability {
  std::int32_t token = 0;
  float probability = 0;  // raw softmax over the allowed ids
};

struct RowChoice {
  bool valid = false;  // false: an allowed logit was NaN or +infinity, or no id is allowed
  std::int32_t token = 0;
  double confidence = 0;               // softmax over allowed raw logits at `token`
  double log_probability = 0;          // its logarithm
  double score = 0;                    // of the rule (rule.h)
  double watched = 0;                  // softmax over allowed raw logits at RowSampling::watched
  std::vector<TokenProbability> best;  // by descending probability, ties by ascending id
};

// logits: (vocabulary) raw, may hold -infinity. position: absolute, of the noise.
RowChoice ChooseFromRow(const RowSampling& sampling, std::uint32_t position,
                        std::span<const float> logits);

// Whether the rule's predictions need whole rows of logits.
bool NeedsWholeRows(const RuleParams& params);

}  // namespace maskkv::decoding

#endif  // MASKKV_CORE_DECODING_ROW_CHOICE_H_
