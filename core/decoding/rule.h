// SPDX-License-Identifier: Apache-2.0
//
// The decoding rules by name: which masks a step commits, how sure a prediction is, and the
// parameters that a caller may set. Pure values and functions.
//
// A rule has two halves. Its score says how sure the prediction of one mask is; its choice says,
// from the scores of a block's masks, which are committed in this step.
//
//   name            score                             choice
//   low_confidence  raw probability                   LLaDA's schedule: n / steps a step
//   random          uniform noise                     the same
//   origin          -                                 Dream: each mask with probability 1 - s / t
//   maskgit_plus    filtered probability              Dream: floor(masks * (1 - s / t)) best
//   topk_margin     filtered p1 - p2                  the same
//   entropy         filtered sum p ln p               the same
//   threshold       raw probability                   all >= threshold, the best always
//   factor          raw probability                   rank n while score >= 1 - factor / (n + 1)
//   hierarchical    raw probability                   all >= threshold, the best of each run of
//   masks
//                                                     >= low_threshold, the best always
//   prefix          raw probability                   the leading masks >= threshold, the first
//   always
//   slowfast        raw probability                   one a step until the span's end is stable,
//                                                     then threshold's in it (slowfast_rule.h)
//   remix           raw probability                   all > threshold, at most a share, the best
//   always
//
// "Filtered" is after temperature, top-p and top-k. A score of one kind may be asked for with
// another rule's choice: ConfidenceSource.
#ifndef MASKKV_CORE_DECODING_RULE_H_
#define MASKKV_CORE_DECODING_RULE_H_

#include <cstdint>
#include <span>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace maskkv::decoding {

enum class Rule : std::uint8_t {
  kLowConfidence,
  kRandom,
  kOrigin,
  kMaskgitPlus,
  kTopkMargin,
  kEntropy,
  kThreshold,
  kFactor,
  kHierarchical,
  kPrefix,
  kSlowFast,
  kRemix,
};

// All rules, in the order of the enumeration.
std::span<const Rule> AllRules();

std::string_view Name(Rule rule);

// Errors: INVALID_ARGUMENT with the names that exist.
absl::StatusOr<Rule> ParseRule(std::string_view name);

// Whether probabilities are taken before temperature, top-p and top-k or after them.
enum class ConfidenceSource : std::uint8_t { kOfRule, kRaw, kFiltered };

inline constexpr std::int64_t kMostExploreSteps = 1024;
inline constexpr std::int64_t kMostStableSteps = 64;

struct RuleParams {
  Rule rule = Rule::kLowConfidence;
  ConfidenceSource source = ConfidenceSource::kOfRule;
  double top_p = 1;        // (0, 1]; 1: off. Smallest set whose probability exceeds it
  std::int64_t top_k = 0;  // 0: off
  // origin, maskgit_plus, topk_margin, entropy: t goes linearly from 1 to eps.
  double eps = 1e-3;
  // maskgit_plus, topk_margin, entropy: 0 takes the best; else positions are drawn without
  // replacement from softmax(score / alg_temp).
  double alg_temp = 0;
  double threshold = 0.9;      // threshold, hierarchical, prefix, slowfast, remix
  double low_threshold = 0.4;  // hierarchical
  double factor = 1;           // factor
  // slowfast: the span ends behind the last mask that is this sure; it is explored for at most
  // explore_steps, or until the last stable_steps estimates of its end agree.
  double span_threshold = 0.3;
  std::int64_t explore_steps = 6;  // 1 to kMostExploreSteps
  std::int64_t stable_steps = 2;   // 1 to kMostStableSteps
  // remix: how much of a mask's embedding is that of its last prediction (0 to 1), from how many of
  // its most likely tokens, and from which Jensen-Shannon divergence of two predictions on (nats)
  // it is the mask's alone: core/engine/mask_mixer.h.
  double mix_weight = 0.5;
  std::int64_t mix_top = 50;
  double js_threshold = 0.3;

  bool operator==(const RuleParams&) const = default;
};

// Errors: INVALID_ARGUMENT that names the parameter, what was found and what was expected.
absl::Status Validate(const RuleParams& params);

// The rule commits by a number of steps that is given (GenerateParams::steps); the others run until
// nothing is masked.
bool IsScheduled(Rule rule);

// The rule is meant for blocks, decoded left to right; Dream's algorithms take the whole answer as
// one unless they are asked otherwise.
bool HasBlocks(Rule rule);

// Scores after temperature, top-p and top-k.
bool IsFiltered(const RuleParams& params);

// The rule shows masks as what they were last predicted to be.
bool IsMixed(Rule rule);

}  // namespace maskkv::decoding

#endif  // MASKKV_CORE_DECODING_RULE_H_
