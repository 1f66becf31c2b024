// SPDX-License-Identifier: Apache-2.0
//
// A rule's choice: which of a step's predictions are committed. One object a request, which may
// remember earlier steps; it knows neither model nor canvas. Not thread safe.
//
// Every choice is a function of the request's own parameters and predictions. Ties go to the lower
// position.
#ifndef MASKKV_CORE_DECODING_COMMIT_RULE_H_
#define MASKKV_CORE_DECODING_COMMIT_RULE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/decoding/prediction.h"
#include "core/decoding/rule.h"

namespace maskkv::decoding {

// Where a request stands when a rule is asked.
struct StepContext {
  std::int64_t step = 0;         // 0-based, counted over all blocks (Canvas::step)
  std::int64_t block_step = 0;   // 0-based within the block
  std::int64_t block_steps = 0;  // steps that the block has, where the rule is scheduled; else 0
  std::int64_t block_masks = 0;  // masks when the block began
  // Absolute position of canvas position 0, and the request's seed: the key of a rule's noise.
  std::int64_t first_position = 0;
  std::uint64_t seed = 0;
};

class CommitRule {
 public:
  virtual ~CommitRule() = default;

  // Whether the step needs no forward because it commits nothing whatever is predicted (a schedule
  // that ran out of masks). masks: those left in the block.
  virtual bool Skips(const StepContext& context, std::int64_t masks) const = 0;

  // predictions: of every mask of the block, by ascending position, at least one. Returns indices
  // into them, ascending. May be empty only where the rule draws how many (origin).
  virtual std::vector<std::size_t> Choose(const StepContext& context,
                                          std::span<const Prediction> predictions) = 0;
};

// REQUIRES: Validate(params) is OK.
std::unique_ptr<CommitRule> MakeCommitRule(const RuleParams& params);

// Indices of the `count` best scores, ascending; ties to the lower index. REQUIRES: count <= size.
std::vector<std::size_t> BestScores(std::span<const Prediction> predictions, std::int64_t count);

}  // namespace maskkv::decoding

#endif  // MASKKV_CORE_DECODING_COMMIT_RULE_H_
