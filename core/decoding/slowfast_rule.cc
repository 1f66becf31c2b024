// SPDX-License-Identifier: Apache-2.0
#include "core/decoding/slowfast_rule.h"

#include <algorithm>
#include <numeric>

namespace maskkv::decoding {
namespace {

// Whether the population standard deviation is below 1: n sum(x^2) - sum(x)^2 < n^2, exactly.
// Positions are below 2^24 and values at most kMostStableSteps, so nothing overflows.
bool Agree(std::span<const std::int64_t> values) {
  const std::int64_t n = std::ssize(values);
  const std::int64_t sum = std::accumulate(values.begin(), values.end(), std::int64_t{0});
  const std::int64_t squares =
      std::inner_product(values.begin(), values.end(), values.begin(), std::int64_t{0});
  return n * squares - sum * sum < n * n;
}

}  // namespace

std::int64_t SlowFastRule::Estimate(std::span<const Prediction> predictions) const {
  for (std::size_t i = predictions.size(); i-- > 0;) {
    if (static_cast<double>(predictions[i].score) >= span_threshold_) {
      return predictions[i].position + 1;
    }
  }
  return predictions.front().position + 1;
}

void SlowFastRule::Explore(std::int64_t estimate) {
  if (estimates_.size() == stable_steps_) estimates_.erase(estimates_.begin());
  estimates_.push_back(estimate);
  ++explored_;
  if (estimates_.size() == stable_steps_ && Agree(estimates_)) {
    end_ = estimate;
  } else if (explored_ == explore_steps_) {
    end_ = std::accumulate(estimates_.begin(), estimates_.end(), std::int64_t{0}) /
           std::ssize(estimates_);
  }
}

std::vector<std::size_t> SlowFastRule::Choose(const StepContext& context,
                                              std::span<const Prediction> predictions) {
  const auto masks_before_end = [&] {
    return static_cast<std::size_t>(
        std::ranges::count_if(predictions, [&](const Prediction& prediction) {
          return prediction.position < *end_;  // the first ones: positions ascend
        }));
  };
  const std::size_t within = end_ ? masks_before_end() : 0;
  if (context.block_step == 0 || (end_ && within == 0)) {  // a cycle begins
    explored_ = 0;
    estimates_.clear();
    end_.reset();
  }
  if (end_) return threshold_.Choose(context, predictions.first(within));
  Explore(Estimate(predictions));
  return BestScores(predictions, 1);
}

}  // namespace maskkv::decoding
