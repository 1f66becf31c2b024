// SPDX-License-Identifier: Apache-2.0
#include "core/policy/importance.h"

#include <limits>

#include "absl/strings/str_format.h"
#include "core/base/check.h"
#include "core/base/status_macros.h"
#include "core/policy/arguments.h"
#include "core/policy/exact_sum.h"

namespace maskkv::policy {

absl::Status CheckImportance(std::span<const double> importance) {
  MASKKV_RETURN_IF_ERROR(CheckWeights("importance", "layer", importance));
  for (std::size_t layer = 0; layer < importance.size(); ++layer) {
    if (importance[layer] <= kMaxImportance) continue;
    return absl::InvalidArgumentError(
        absl::StrFormat("importance: layer %d: expected a number from 0 to %g, found %g", layer,
                        kMaxImportance, importance[layer]));
  }
  return absl::OkStatus();
}

absl::Status ImportanceAccumulator::Add(std::span<const double> importance, std::int64_t tokens) {
  if (static_cast<std::int64_t>(importance.size()) != layers_) {
    return absl::InvalidArgumentError(
        absl::StrFormat("importance: expected %d layers, found %d", layers_, importance.size()));
  }
  MASKKV_RETURN_IF_ERROR(CheckImportance(importance));
  MASKKV_RETURN_IF_ERROR(
      CheckInteger("tokens", tokens, 1, std::numeric_limits<std::int64_t>::max() - tokens_));
  values_.insert(values_.end(), importance.begin(), importance.end());
  ++samples_;
  tokens_ += tokens;
  return absl::OkStatus();
}

std::vector<double> ImportanceAccumulator::Mean() const {
  const auto layers = static_cast<std::size_t>(layers_);
  std::vector<double> mean;
  std::vector<double> of_layer;
  for (std::size_t layer = 0; layer < layers; ++layer) {
    of_layer.clear();
    for (std::size_t i = layer; i < values_.size(); i += layers) of_layer.push_back(values_[i]);
    mean.push_back(samples_ == 0 ? 0 : ExactSum(of_layer) / static_cast<double>(samples_));
  }
  return mean;
}

void ImportanceAccumulator::CheckInvariants() const {
  MASKKV_CHECK(samples_ >= 0 && tokens_ >= samples_, "a sample has at least one token");
  MASKKV_CHECK(static_cast<std::int64_t>(values_.size()) == samples_ * layers_,
               "one importance for every sample and layer");
  for (const double value : values_) {
    MASKKV_CHECK(value >= 0 && value <= kMaxImportance, "importance in range");
  }
}

}  // namespace maskkv::policy
