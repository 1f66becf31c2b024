// SPDX-License-Identifier: Apache-2.0
//
// Rules that commit as many masks as are sure enough, at least one a step. They remember nothing.
#ifndef MASKKV_CORE_DECODING_PARALLEL_RULES_H_
#define MASKKV_CORE_DECODING_PARALLEL_RULES_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/decoding/commit_rule.h"

namespace maskkv::decoding {

// Base: a step is never skipped.
class ParallelRule : public CommitRule {
 public:
  bool Skips(const StepContext&, std::int64_t) const final { return false; }
};

// Fast-dLLM's threshold (arXiv 2505.22618): every mask whose score reaches it, the best always.
class ThresholdRule final : public ParallelRule {
 public:
  explicit ThresholdRule(double threshold) : threshold_(threshold) {}
  std::vector<std::size_t> Choose(const StepContext& context,
                                  std::span<const Prediction> predictions) override;

 private:
  const double threshold_;
};

// Fast-dLLM's factor: by descending score, rank n (from 1) is taken while
// score >= 1 - factor / (n + 1); rank 1 always.
class FactorRule final : public ParallelRule {
 public:
  explicit FactorRule(double factor) : factor_(factor) {}
  std::vector<std::size_t> Choose(const StepContext& context,
                                  std::span<const Prediction> predictions) override;

 private:
  const double factor_;
};

// dInfer's hierarchical rule (arXiv 2510.08666): masks at consecutive positions are a run; every
// mask that reaches the high threshold, the best of each run if it reaches the low one, the best of
// all always.
class HierarchicalRule final : public ParallelRule {
 public:
  HierarchicalRule(double high, double low) : high_(high), low_(low) {}
  std::vector<std::size_t> Choose(const StepContext& context,
                                  std::span<const Prediction> predictions) override;

 private:
  const double high_;
  const double low_;
};

// Left to right: the leading masks that reach the threshold, the first always.
class PrefixRule final : public ParallelRule {
 public:
  explicit PrefixRule(double threshold) : threshold_(threshold) {}
  std::vector<std::size_t> Choose(const StepContext& context,
                                  std::span<const Prediction> predictions) override;

 private:
  const double threshold_;
};

// ReMix (arXiv 2602.22868): those above the threshold, at most min(max(0.7 n, 5), 20) of n masks
// (rounded down), the best; the best of all always.
class RemixRule final : public ParallelRule {
 public:
  explicit RemixRule(double threshold) : threshold_(threshold) {}
  std::vector<std::size_t> Choose(const StepContext& context,
                                  std::span<const Prediction> predictions) override;

 private:
  const double threshold_;
};

}  // namespace maskkv::decoding

#endif  // MASKKV_CORE_DECODING_PARALLEL_RULES_H_
