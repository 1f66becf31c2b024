// SPDX-License-Identifier: Apache-2.0
//
// Rules that commit by a given number of steps.
//
// LLaDA (quota): of n masks in s steps, n / s a step, the first n mod s steps one more.
// Dream (timesteps): step i of s goes from t = 1 - i (1 - eps) / s to t' = 1 - (i + 1)(1 - eps) / s
// and commits floor(m (1 - t' / t)) of the m masks that are left, the last step all of them.
// `origin` draws each mask by itself instead, with probability 1 - t' / t.
#ifndef MASKKV_CORE_DECODING_SCHEDULED_RULES_H_
#define MASKKV_CORE_DECODING_SCHEDULED_RULES_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/decoding/commit_rule.h"

namespace maskkv::decoding {

// Tokens that step `step` (0-based) commits of a block that began with `masks` masks and has
// `steps` steps. Zero once the masks run out (steps > masks). REQUIRES: steps >= 1.
std::int64_t CommitCount(std::int64_t masks, std::int64_t steps, std::int64_t step);

// 1 - t' / t of a step, in (0, 1]; 1 in the last. REQUIRES: 0 <= step < steps, 0 < eps < 1.
double TimestepShare(double eps, std::int64_t steps, std::int64_t step);

// low_confidence, random: the quota's best scores.
class QuotaRule : public CommitRule {
 public:
  bool Skips(const StepContext& context, std::int64_t masks) const override;
  std::vector<std::size_t> Choose(const StepContext& context,
                                  std::span<const Prediction> predictions) override;
};

// maskgit_plus, topk_margin, entropy: the timestep's best scores; with alg_temp > 0 positions are
// drawn without replacement from softmax(score / alg_temp), by Gumbel noise on score / alg_temp.
class TimestepRule : public CommitRule {
 public:
  TimestepRule(double eps, double alg_temp) : eps_(eps), alg_temp_(alg_temp) {}

  bool Skips(const StepContext& context, std::int64_t masks) const override;
  std::vector<std::size_t> Choose(const StepContext& context,
                                  std::span<const Prediction> predictions) override;

 private:
  std::int64_t Count(const StepContext& context, std::int64_t masks) const;

  const double eps_;
  const double alg_temp_;
};

// origin: each mask with the timestep's share, by a uniform number of (seed, position, step).
class OriginRule : public CommitRule {
 public:
  explicit OriginRule(double eps) : eps_(eps) {}

  bool Skips(const StepContext&, std::int64_t) const override { return false; }
  std::vector<std::size_t> Choose(const StepContext& context,
                                  std::span<const Prediction> predictions) override;

 private:
  const double eps_;
};

}  // namespace maskkv::decoding

#endif  // MASKKV_CORE_DECODING_SCHEDULED_RULES_H_
