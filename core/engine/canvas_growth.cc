// SPDX-License-Identifier: Apache-2.0
//
// How a canvas grows: growth.h.
#include <algorithm>

#include "core/base/check.h"
#include "core/engine/canvas.h"

namespace maskkv::engine {
namespace {

// Masks that a canvas grows by where the caller does not say.
constexpr std::int64_t kUsualGrowth = 8;

}  // namespace

bool Canvas::may_grow() const {
  if (finished() || length() >= params_.growth.max_gen_length) return false;
  // Behind a stop id nothing belongs to the answer.
  return std::none_of(tokens_.begin(), tokens_.end(), [&](std::int32_t id) { return IsStop(id); });
}

bool Canvas::watches_end() const {
  const Growth& growth = params_.growth;
  const bool later = growth.low_confidence > 0 && growth.eos_threshold_decoding > 0;
  return (settled_ ? later : growth.eos_threshold > 0 || later) && may_grow();
}

std::int64_t Canvas::watched_from() const {
  return std::max<std::int64_t>(0, length() - params_.growth.window);
}

double Canvas::EndCertainty(std::span<const double> masked) const {
  double sum = 0;
  for (const double probability : masked) sum += probability;
  return sum / static_cast<double>(length() - watched_from());
}

bool Canvas::GrowInstead(double end_certainty) {
  if (settled_ || !may_grow() || end_certainty >= params_.growth.eos_threshold) return false;
  Grow();
  return true;
}

bool Canvas::GrowsAfter(std::span<const Prediction> predictions, double end_certainty) const {
  const Growth& growth = params_.growth;
  if (end_certainty >= growth.eos_threshold_decoding || !may_grow()) return false;
  return std::any_of(predictions.begin(), predictions.end(), [&](const Prediction& p) {
    return masked(p.position) && static_cast<double>(p.confidence) < growth.low_confidence;
  });
}

void Canvas::Grow() {
  const std::int64_t block = params_.block_length;
  const std::int64_t usual = (kUsualGrowth + block - 1) / block * block;
  const std::int64_t by = params_.growth.by != 0 ? params_.growth.by : usual;
  const auto length_after =
      static_cast<std::size_t>(std::min(length() + by, params_.growth.max_gen_length));
  MASKKV_CHECK(length_after > tokens_.size(), "a canvas that may grow has room");
  tokens_.resize(length_after, mask_id_);
  masked_.resize(length_after, 1);
  was_masked_.resize(length_after, 1);
}

}  // namespace maskkv::engine
