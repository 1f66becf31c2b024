// SPDX-License-Identifier: Apache-2.0
#include "core/decoding/parallel_rules.h"

#include <algorithm>
#include <numeric>

namespace maskkv::decoding {
namespace {

// Indices of all that satisfy `taken`, and `always`, ascending.
template <typename Taken>
std::vector<std::size_t> ThoseAnd(std::size_t always, std::size_t size, const Taken& taken) {
  std::vector<std::size_t> chosen;
  for (std::size_t i = 0; i < size; ++i) {
    if (i == always || taken(i)) chosen.push_back(i);
  }
  return chosen;
}

double Score(std::span<const Prediction> predictions, std::size_t index) {
  return static_cast<double>(predictions[index].score);
}

}  // namespace

std::vector<std::size_t> ThresholdRule::Choose(const StepContext&,
                                               std::span<const Prediction> predictions) {
  const std::size_t best = BestScores(predictions, 1).front();
  return ThoseAnd(best, predictions.size(),
                  [&](std::size_t i) { return Score(predictions, i) >= threshold_; });
}

std::vector<std::size_t> FactorRule::Choose(const StepContext&,
                                            std::span<const Prediction> predictions) {
  std::vector<std::size_t> order(predictions.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return predictions[a].score > predictions[b].score;
  });
  std::size_t count = 1;
  while (count < order.size() &&
         Score(predictions, order[count]) >= 1 - factor_ / static_cast<double>(count + 2)) {
    ++count;
  }
  order.resize(count);
  std::sort(order.begin(), order.end());
  return order;
}

std::vector<std::size_t> HierarchicalRule::Choose(const StepContext&,
                                                  std::span<const Prediction> predictions) {
  std::vector<char> leads(predictions.size(), 0);  // the best of its run, and sure enough
  for (std::size_t begin = 0; begin < predictions.size();) {
    std::size_t end = begin + 1, best = begin;
    for (;
         end < predictions.size() && predictions[end].position == predictions[end - 1].position + 1;
         ++end) {
      if (predictions[end].score > predictions[best].score) best = end;
    }
    if (Score(predictions, best) >= low_) leads[best] = 1;
    begin = end;
  }
  const std::size_t best = BestScores(predictions, 1).front();
  return ThoseAnd(best, predictions.size(),
                  [&](std::size_t i) { return leads[i] != 0 || Score(predictions, i) >= high_; });
}

std::vector<std::size_t> PrefixRule::Choose(const StepContext&,
                                            std::span<const Prediction> predictions) {
  std::vector<std::size_t> chosen{0};
  while (chosen.size() < predictions.size() && Score(predictions, chosen.size()) >= threshold_) {
    chosen.push_back(chosen.size());
  }
  return chosen;
}

std::vector<std::size_t> RemixRule::Choose(const StepContext&,
                                           std::span<const Prediction> predictions) {
  const auto masks = std::ssize(predictions);
  const std::int64_t most = std::clamp<std::int64_t>(masks * 7 / 10, 5, 20);
  std::int64_t above = 0;
  for (std::size_t i = 0; i < predictions.size(); ++i) {
    above += Score(predictions, i) > threshold_ ? 1 : 0;
  }
  return BestScores(predictions, std::clamp<std::int64_t>(above, 1, most));
}

}  // namespace maskkv::decoding
