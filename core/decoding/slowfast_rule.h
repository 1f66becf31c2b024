// SPDX-License-Identifier: Apache-2.0
//
// SlowFast sampling (arXiv 2506.10848): cycles of two phases over the masks of a block.
//
//   slow   Every step estimates where the span of sure predictions ends: behind the last mask whose
//          score reaches span_threshold, or behind the first mask if none does. It commits the
//          surest mask of the block. The phase ends once the last stable_steps estimates agree
//          (their standard deviation is below one position): the span ends at the latest of them;
//          or after explore_steps steps: at the mean of the last stable_steps, rounded down.
//   fast   Every step commits those masks before the span's end that reach the threshold, the
//          surest of them always. Once none is left there the next step is the first of a cycle.
//
// A block begins a cycle. What was left open by the paper: docs/adr/0010-slowfast-and-guidance.md.
#ifndef MASKKV_CORE_DECODING_SLOWFAST_RULE_H_
#define MASKKV_CORE_DECODING_SLOWFAST_RULE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/decoding/commit_rule.h"
#include "core/decoding/parallel_rules.h"

namespace maskkv::decoding {

class SlowFastRule final : public ParallelRule {
 public:
  explicit SlowFastRule(const RuleParams& params)
      : threshold_(params.threshold),
        span_threshold_(params.span_threshold),
        explore_steps_(params.explore_steps),
        stable_steps_(static_cast<std::size_t>(params.stable_steps)) {}

  std::vector<std::size_t> Choose(const StepContext& context,
                                  std::span<const Prediction> predictions) override;

 private:
  // Where the span ends as far as one step can tell: a canvas position, exclusive.
  std::int64_t Estimate(std::span<const Prediction> predictions) const;
  // Takes this step's estimate; may set end_.
  void Explore(std::int64_t estimate);

  ThresholdRule threshold_;
  const double span_threshold_;
  const std::int64_t explore_steps_;
  const std::size_t stable_steps_;

  // The cycle.
  std::int64_t explored_ = 0;            // slow steps taken
  std::vector<std::int64_t> estimates_;  // of the last stable_steps_ of them
  std::optional<std::int64_t> end_;      // in the fast phase: of the span
};

}  // namespace maskkv::decoding

#endif  // MASKKV_CORE_DECODING_SLOWFAST_RULE_H_
