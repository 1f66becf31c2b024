// SPDX-License-Identifier: Apache-2.0
#include "core/decoding/commit_rule.h"

#include <algorithm>
#include <numeric>

#include "core/base/check.h"
#include "core/decoding/parallel_rules.h"
#include "core/decoding/scheduled_rules.h"
#include "core/decoding/slowfast_rule.h"

namespace maskkv::decoding {

std::unique_ptr<CommitRule> MakeCommitRule(const RuleParams& params) {
  MASKKV_CHECK(Validate(params).ok(), "parameters of a rule were validated");
  switch (params.rule) {
    case Rule::kLowConfidence:
    case Rule::kRandom:
      return std::make_unique<QuotaRule>();
    case Rule::kOrigin:
      return std::make_unique<OriginRule>(params.eps);
    case Rule::kMaskgitPlus:
    case Rule::kTopkMargin:
    case Rule::kEntropy:
      return std::make_unique<TimestepRule>(params.eps, params.alg_temp);
    case Rule::kThreshold:
      return std::make_unique<ThresholdRule>(params.threshold);
    case Rule::kFactor:
      return std::make_unique<FactorRule>(params.factor);
    case Rule::kHierarchical:
      return std::make_unique<HierarchicalRule>(params.threshold, params.low_threshold);
    case Rule::kPrefix:
      return std::make_unique<PrefixRule>(params.threshold);
    case Rule::kSlowFast:
      return std::make_unique<SlowFastRule>(params);
    case Rule::kRemix:
      return std::make_unique<RemixRule>(params.threshold);
  }
  MASKKV_CHECK(false, "a rule of the enumeration");
  return nullptr;
}

std::vector<std::size_t> BestScores(std::span<const Prediction> predictions, std::int64_t count) {
  std::vector<std::size_t> order(predictions.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return predictions[a].score > predictions[b].score;
  });
  order.resize(static_cast<std::size_t>(count));
  std::sort(order.begin(), order.end());
  return order;
}

}  // namespace maskkv::decoding
