// SPDX-License-Identifier: Apache-2.0
#include "kernels/head/token_reducer.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "kernels/base/elementary.h"
#include "kernels/base/multiversion.h"
#include "kernels/sample/gumbel.h"

namespace maskkv::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Terms and scores of a panel are made this many at a time on the stack.
constexpr std::size_t kChunk = 256;

void Forbid(std::span<const std::int32_t> forbidden, std::int32_t first_id,
            std::span<float> logits) {
  const std::int64_t end = first_id + static_cast<std::int64_t>(logits.size());
  auto id = std::lower_bound(forbidden.begin(), forbidden.end(), first_id);
  for (; id != forbidden.end() && *id < end; ++id) {
    logits[static_cast<std::size_t>(*id - first_id)] = -kInfinity;
  }
}

// An integer that is ordered as the floats are: NaN with sign bit, -infinity, ..., -0, 0, ...,
// +infinity, NaN. Compilers vectorise the maximum of integers; that of floats they may not reorder.
// Its own inverse.
std::int32_t Ordered(std::int32_t bits) { return bits ^ ((bits >> 31) & 0x7fffffff); }

constexpr std::int32_t kOrderedInfinity = 0x7f800000;
constexpr std::int32_t kOrderedMinusInfinity = -0x7f800001;

struct Range {
  std::int32_t lowest;
  std::int32_t highest;
};

MASKKV_MULTIVERSION Range OrderedRange(const float* values, std::int64_t n) {
  Range range{kOrderedInfinity, kOrderedMinusInfinity};
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int32_t key = Ordered(std::bit_cast<std::int32_t>(values[i]));
    range.lowest = std::min(range.lowest, key);
    range.highest = std::max(range.highest, key);
  }
  return range;
}

struct Summary {
  float max;
  bool invalid;
};

// The maximum (-infinity of nothing), and whether a value is NaN or +infinity.
Summary Summarise(std::span<const float> values) {
  const Range range = OrderedRange(values.data(), static_cast<std::int64_t>(values.size()));
  return {std::bit_cast<float>(Ordered(range.highest)),
          range.highest >= kOrderedInfinity || range.lowest < kOrderedMinusInfinity};
}

MASKKV_MULTIVERSION void ExpOfDifferences(const float* values, std::int64_t n, float max,
                                          float* __restrict terms) {
  for (std::int64_t i = 0; i < n; ++i) terms[i] = Exp(values[i] - max);
}

MASKKV_MULTIVERSION float Sum(const float* terms, std::int64_t n) {
  float lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += terms[i + lane];
  }
  for (std::int64_t lane = 0; i < n; ++i, ++lane) lanes[lane] += terms[i];
  for (std::int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (std::int64_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  }
  return lanes[0];
}

// Sum of exp(value - max). REQUIRES: max is finite.
double SumOfExp(std::span<const float> values, float max) {
  double sum = 0.0;
  for (std::size_t begin = 0; begin < values.size(); begin += kChunk) {
    const auto count = static_cast<std::int64_t>(std::min(kChunk, values.size() - begin));
    float terms[kChunk];
    ExpOfDifferences(values.data() + begin, count, max, terms);
    sum += Sum(terms, count);
  }
  return sum;
}

MASKKV_MULTIVERSION void AddNoise(const float* logits, float temperature, std::int64_t n,
                                  float* noise) {
  for (std::int64_t i = 0; i < n; ++i) noise[i] = logits[i] + temperature * noise[i];
}

// Adds the softmax statistics of allowed logits to the choice.
void AddStatistics(std::span<const float> logits, const Summary& summary, TokenChoice& choice) {
  if (summary.max == -kInfinity) return;  // nothing here has any probability
  const double sum = SumOfExp(logits, summary.max);
  if (summary.max > choice.max) {
    choice.sum = choice.sum * std::exp(static_cast<double>(choice.max) - summary.max) + sum;
    choice.max = summary.max;
  } else {
    choice.sum += sum * std::exp(static_cast<double>(summary.max) - choice.max);
  }
}

// Makes the first id whose score is `best`, the largest, the choice if it beats what smaller ids
// gave.
void Challenge(std::span<const float> scores, float best, std::span<const float> logits,
               std::int32_t first_id, TokenChoice& choice) {
  if (!(best > choice.score)) return;
  const auto at = std::ranges::find(scores, best) - scores.begin();
  choice.token = first_id + static_cast<std::int32_t>(at);
  choice.logit = logits[static_cast<std::size_t>(at)];
  choice.score = best;
}

void InitChoice(void* state) {
  *static_cast<TokenChoice*>(state) =
      TokenChoice{-1, 0, -kInfinity, -kInfinity, -kInfinity, 0.0F, 0.0};
}

void MergeChoice(const void* later, void* into) {
  const TokenChoice& from = *static_cast<const TokenChoice*>(later);
  TokenChoice& to = *static_cast<TokenChoice*>(into);
  to.invalid |= from.invalid;
  if (from.max > to.max) {
    to.sum = to.sum * std::exp(static_cast<double>(to.max) - from.max) + from.sum;
    to.max = from.max;
  } else if (from.max > -kInfinity) {
    to.sum += from.sum * std::exp(static_cast<double>(from.max) - to.max);
  }
  if (from.score > to.score) {
    to.token = from.token;
    to.logit = from.logit;
    to.score = from.score;
  }
}

}  // namespace

double TokenChoice::confidence() const { return std::exp(static_cast<double>(logit) - max) / sum; }

double TokenChoice::log_confidence() const {
  return (static_cast<double>(logit) - max) - std::log(sum);
}

void ArgmaxReducer::Init(void* state) const { InitChoice(state); }

void ArgmaxReducer::Merge(const void* later, void* into) const { MergeChoice(later, into); }

void ArgmaxReducer::Consume(std::int64_t, std::int32_t first_id, std::span<float> logits,
                            void* state) const {
  TokenChoice& choice = *static_cast<TokenChoice*>(state);
  Forbid(forbidden_, first_id, logits);
  const Summary summary = Summarise(logits);
  if (summary.invalid) choice.invalid = 1;
  if (choice.invalid != 0) return;
  AddStatistics(logits, summary, choice);
  Challenge(logits, summary.max, logits, first_id, choice);
}

void GumbelReducer::Init(void* state) const { InitChoice(state); }

void GumbelReducer::Merge(const void* later, void* into) const { MergeChoice(later, into); }

void GumbelReducer::Consume(std::int64_t row_tag, std::int32_t first_id, std::span<float> logits,
                            void* state) const {
  TokenChoice& choice = *static_cast<TokenChoice*>(state);
  Forbid(forbidden_, first_id, logits);
  const Summary summary = Summarise(logits);
  if (summary.invalid) choice.invalid = 1;
  if (choice.invalid != 0) return;
  AddStatistics(logits, summary, choice);
  for (std::size_t begin = 0; begin < logits.size(); begin += kChunk) {
    const std::size_t count = std::min(kChunk, logits.size() - begin);
    const std::span<const float> part = logits.subspan(begin, count);
    const std::int32_t id = first_id + static_cast<std::int32_t>(begin);
    float scores[kChunk];
    GumbelNoise(seed_, static_cast<std::uint32_t>(row_tag), step_, id, {scores, count});
    AddNoise(part.data(), temperature_, static_cast<std::int64_t>(count), scores);
    Challenge({scores, count}, Summarise({scores, count}).max, part, id, choice);
  }
}

}  // namespace maskkv::kernels
