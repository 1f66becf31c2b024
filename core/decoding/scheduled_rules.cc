// SPDX-License-Identifier: Apache-2.0
#include "core/decoding/scheduled_rules.h"

#include <cmath>

#include "kernels/sample/philox.h"

namespace maskkv::decoding {
namespace {

float NoiseOf(const StepContext& context, const Prediction& prediction,
              kernels::PhiloxStream stream) {
  return kernels::Uniform(context.seed,
                          static_cast<std::uint32_t>(context.first_position + prediction.position),
                          static_cast<std::uint32_t>(context.step), 0, stream);
}

}  // namespace

std::int64_t CommitCount(std::int64_t masks, std::int64_t steps, std::int64_t step) {
  return masks / steps + (step < masks % steps ? 1 : 0);
}

double TimestepShare(double eps, std::int64_t steps, std::int64_t step) {
  if (step + 1 == steps) return 1;
  const double width = (1 - eps) / static_cast<double>(steps);
  const double t = 1 - static_cast<double>(step) * width;
  return width / t;
}

bool QuotaRule::Skips(const StepContext& context, std::int64_t) const {
  return CommitCount(context.block_masks, context.block_steps, context.block_step) == 0;
}

std::vector<std::size_t> QuotaRule::Choose(const StepContext& context,
                                           std::span<const Prediction> predictions) {
  return BestScores(predictions,
                    CommitCount(context.block_masks, context.block_steps, context.block_step));
}

std::int64_t TimestepRule::Count(const StepContext& context, std::int64_t masks) const {
  const double share = TimestepShare(eps_, context.block_steps, context.block_step);
  return static_cast<std::int64_t>(std::floor(static_cast<double>(masks) * share));
}

bool TimestepRule::Skips(const StepContext& context, std::int64_t masks) const {
  return Count(context, masks) == 0;
}

std::vector<std::size_t> TimestepRule::Choose(const StepContext& context,
                                              std::span<const Prediction> predictions) {
  const std::int64_t count = Count(context, std::ssize(predictions));
  if (alg_temp_ == 0) return BestScores(predictions, count);
  // The largest of score / T + Gumbel noise are draws from softmax(score / T) without replacement.
  std::vector<Prediction> noisy(predictions.begin(), predictions.end());
  for (Prediction& prediction : noisy) {
    const double u = NoiseOf(context, prediction, kernels::PhiloxStream::kPositionNoise);
    prediction.score = static_cast<float>(static_cast<double>(prediction.score) / alg_temp_ -
                                          std::log(-std::log(u)));
  }
  return BestScores(noisy, count);
}

std::vector<std::size_t> OriginRule::Choose(const StepContext& context,
                                            std::span<const Prediction> predictions) {
  const double share = TimestepShare(eps_, context.block_steps, context.block_step);
  std::vector<std::size_t> chosen;
  for (std::size_t i = 0; i < predictions.size(); ++i) {
    const double u = NoiseOf(context, predictions[i], kernels::PhiloxStream::kPositionNoise);
    if (u < share) chosen.push_back(i);
  }
  return chosen;
}

}  // namespace maskkv::decoding
