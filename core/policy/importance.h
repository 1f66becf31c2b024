// SPDX-License-Identifier: Apache-2.0
//
// The mean of layer importance over calibration samples: equation (8) of MaskKV (arXiv 2510.09309)
// gives one importance a layer and sample, I(l) = 1 - mean cosine similarity between the hidden
// state before and after the attention sub-layer (residual included). Every sample counts the same,
// whatever its length.
//
// Owns a copy of the samples' importances, so that the mean is the exactly rounded one and does not
// depend on their order. Not thread safe.
// Invariant: every sample has one importance a layer, finite and in [0, kMaxImportance].
#ifndef MASKKV_CORE_POLICY_IMPORTANCE_H_
#define MASKKV_CORE_POLICY_IMPORTANCE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"

namespace maskkv::policy {

// A cosine is at least -1.
inline constexpr double kMaxImportance = 2;

// OK if `importance` has 1 to kMaxUnits values in [0, kMaxImportance].
// Errors: INVALID_ARGUMENT naming the layer.
absl::Status CheckImportance(std::span<const double> importance);

class ImportanceAccumulator {
 public:
  // layers: 1 to 2^20; another number makes every Add fail.
  explicit ImportanceAccumulator(std::int64_t layers) : layers_(layers) {}

  // One sample. importance (layers) f64; tokens >= 1: prompt and masks it was measured over.
  // Errors: INVALID_ARGUMENT naming argument, found and expected; the sample is then not counted.
  absl::Status Add(std::span<const double> importance, std::int64_t tokens);

  std::int64_t layers() const { return layers_; }
  std::int64_t samples() const { return samples_; }
  std::int64_t tokens() const { return tokens_; }  // of all samples

  // (layers), the mean over samples; zeros before the first sample.
  std::vector<double> Mean() const;

  // Ends the process if the invariant is broken.
  void CheckInvariants() const;

 private:
  const std::int64_t layers_;
  std::int64_t samples_ = 0;
  std::int64_t tokens_ = 0;
  std::vector<double> values_;  // (samples, layers)
};

}  // namespace maskkv::policy

#endif  // MASKKV_CORE_POLICY_IMPORTANCE_H_
