// SPDX-License-Identifier: Apache-2.0
#include "core/policy/pair_pool.h"

#include <algorithm>
#include <limits>
#include <tuple>

#include "absl/strings/str_format.h"
#include "core/base/check.h"
#include "core/base/status_macros.h"
#include "core/policy/arguments.h"

namespace maskkv::policy {

PairPool::PairPool(std::int64_t heads, std::int64_t capacity) : heads_(heads), capacity_(capacity) {
  MASKKV_CHECK(heads >= 1 && heads <= kMaxUnits, "a pool has heads");
  MASKKV_CHECK(capacity >= 0, "a pool's capacity is a count");
}

bool PairPool::ComesBefore(const Pair& a, const Pair& b) {
  return a.score > b.score || (a.score == b.score && Lies(a, b));
}

bool PairPool::Lies(const Pair& a, const Pair& b) {
  return std::tie(a.unit, a.position) < std::tie(b.unit, b.position);
}

absl::Status PairPool::AddLayer(std::span<const float> scores, std::int64_t keys,
                                std::int64_t prompt_tokens) {
  MASKKV_RETURN_IF_ERROR(CheckInteger("keys", keys, 1, kMaxPromptTokens));
  MASKKV_RETURN_IF_ERROR(CheckInteger("prompt_tokens", prompt_tokens, 0, keys));
  MASKKV_RETURN_IF_ERROR(CheckInteger("layers", layers_ + 1, 1, kMaxUnits / heads_));
  if (static_cast<std::int64_t>(scores.size()) != heads_ * keys) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "scores: expected %d heads times %d keys, found %d values", heads_, keys, scores.size()));
  }
  for (std::int64_t head = 0; head < heads_; ++head) {
    const auto of_prompt = scores.subspan(static_cast<std::size_t>(head * keys),
                                          static_cast<std::size_t>(prompt_tokens));
    if (const absl::Status status = CheckScores(of_prompt); !status.ok()) {
      return absl::InvalidArgumentError(absl::StrFormat("head %d: %s", head, status.message()));
    }
  }
  // Of a full pool only what beats its last pair can enter: ties go to the lower layer.
  float least = -1;
  if (pairs() == capacity_) {
    least = std::numeric_limits<float>::infinity();
    for (const Pair& pair : pairs_) least = std::min(least, pair.score);
  }
  for (std::int64_t head = 0; head < heads_; ++head) {
    const float* row = scores.data() + head * keys;
    const auto unit = static_cast<std::int32_t>(layers_ * heads_ + head);
    for (std::int64_t j = 0; j < prompt_tokens; ++j) {
      if (row[j] > least) pairs_.push_back({row[j], unit, static_cast<std::int32_t>(j)});
    }
  }
  if (pairs() > capacity_) {
    const auto end = pairs_.begin() + capacity_;
    std::nth_element(pairs_.begin(), end, pairs_.end(), ComesBefore);
    pairs_.erase(end, pairs_.end());
    std::sort(pairs_.begin(), pairs_.end(), Lies);
  }
  ++layers_;
  return absl::OkStatus();
}

std::vector<std::int32_t> PairPool::Kept(std::int64_t layer, std::int64_t head) const {
  MASKKV_CHECK(layer >= 0 && layer < layers_ && head >= 0 && head < heads_, "a head that was seen");
  const auto unit = static_cast<std::int32_t>(layer * heads_ + head);
  auto pair = std::ranges::lower_bound(pairs_, unit, {}, &Pair::unit);
  std::vector<std::int32_t> positions;
  for (; pair != pairs_.end() && pair->unit == unit; ++pair) positions.push_back(pair->position);
  return positions;
}

void PairPool::CheckInvariants() const {
  MASKKV_CHECK(pairs() <= capacity_, "no more pairs than the capacity");
  MASKKV_CHECK(std::ranges::is_sorted(pairs_, Lies), "pairs lie by layer, head and position");
  for (std::size_t i = 1; i < pairs_.size(); ++i) {
    MASKKV_CHECK(Lies(pairs_[i - 1], pairs_[i]), "no pair twice");
  }
  for (const Pair& pair : pairs_) {
    MASKKV_CHECK(pair.unit >= 0 && pair.unit < layers_ * heads_, "pairs of layers that were seen");
  }
}

}  // namespace maskkv::policy
