// SPDX-License-Identifier: Apache-2.0
#include "kernels/head/token_reducer.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/base/elementary.h"
#include "kernels/base/multiversion.h"
#include "kernels/sample/gumbel.h"

namespace maskkv::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Scores of a panel are made this many at a time on the stack.
constexpr std::size_t kNoiseChunk = 256;

void Forbid(std::span<const std::int32_t> forbidden, std::int32_t first_id,
            std::span<float> logits) {
  const std::int64_t end = first_id + static_cast<std::int64_t>(logits.size());
  auto id = std::lower_bound(forbidden.begin(), forbidden.end(), first_id);
  for (; id != forbidden.end() && *id < end; ++id) {
    logits[static_cast<std::size_t>(*id - first_id)] = -kInfinity;
  }
}

struct Summary {
  float max;
  bool invalid;
};

// The maximum, and whether a value is NaN or +infinity. The maximum means nothing beside a NaN.
MASKKV_MULTIVERSION Summary Summarise(const float* values, std::int64_t n) {
  float max[kLanes];
  std::int32_t bad[kLanes] = {};
  std::fill_n(max, kLanes, -kInfinity);
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::int64_t lane = 0; lane < kLanes; ++lane) {
      const float value = values[i + lane];
      max[lane] = value > max[lane] ? value : max[lane];
      bad[lane] |= value < kInfinity ? 0 : 1;
    }
  }
  for (std::int64_t lane = 0; i < n; ++i, ++lane) {
    max[lane] = values[i] > max[lane] ? values[i] : max[lane];
    bad[lane] |= values[i] < kInfinity ? 0 : 1;
  }
  return {*std::max_element(max, max + kLanes), *std::max_element(bad, bad + kLanes) != 0};
}

// Sum of exp(value - max) over kLanes lanes, folded by halves. REQUIRES: max is finite.
MASKKV_MULTIVERSION float SumOfExp(const float* values, std::int64_t n, float max) {
  float lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += Exp(values[i + lane] - max);
  }
  for (std::int64_t lane = 0; i < n; ++i, ++lane) lanes[lane] += Exp(values[i] - max);
  for (std::int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (std::int64_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  }
  return lanes[0];
}

MASKKV_MULTIVERSION void AddNoise(const float* logits, float temperature, std::int64_t n,
                                  float* noise) {
  for (std::int64_t i = 0; i < n; ++i) noise[i] = logits[i] + temperature * noise[i];
}

// Adds the softmax statistics of allowed logits to the choice.
void AddStatistics(std::span<const float> logits, const Summary& summary, TokenChoice& choice) {
  const auto n = static_cast<std::int64_t>(logits.size());
  if (summary.max == -kInfinity) return;  // nothing here has any probability
  const double sum = SumOfExp(logits.data(), n, summary.max);
  if (summary.max > choice.max) {
    choice.sum = choice.sum * std::exp(static_cast<double>(choice.max) - summary.max) + sum;
    choice.max = summary.max;
  } else {
    choice.sum += sum * std::exp(static_cast<double>(summary.max) - choice.max);
  }
}

// Makes the first id of the largest score the choice if it beats what smaller ids gave.
void Challenge(std::span<const float> scores, std::span<const float> logits, std::int32_t first_id,
               TokenChoice& choice) {
  const float best = Summarise(scores.data(), static_cast<std::int64_t>(scores.size())).max;
  if (!(best > choice.score)) return;
  const auto at = std::find(scores.begin(), scores.end(), best) - scores.begin();
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

void ArgmaxReducer::Init(void* state) const { InitChoice(state); }

void ArgmaxReducer::Merge(const void* later, void* into) const { MergeChoice(later, into); }

void ArgmaxReducer::Consume(std::int64_t, std::int32_t first_id, std::span<float> logits,
                            void* state) const {
  TokenChoice& choice = *static_cast<TokenChoice*>(state);
  Forbid(forbidden_, first_id, logits);
  const Summary summary = Summarise(logits.data(), static_cast<std::int64_t>(logits.size()));
  if (summary.invalid) choice.invalid = 1;
  if (choice.invalid != 0) return;
  AddStatistics(logits, summary, choice);
  Challenge(logits, logits, first_id, choice);
}

void GumbelReducer::Init(void* state) const { InitChoice(state); }

void GumbelReducer::Merge(const void* later, void* into) const { MergeChoice(later, into); }

void GumbelReducer::Consume(std::int64_t row_tag, std::int32_t first_id, std::span<float> logits,
                            void* state) const {
  TokenChoice& choice = *static_cast<TokenChoice*>(state);
  Forbid(forbidden_, first_id, logits);
  const Summary summary = Summarise(logits.data(), static_cast<std::int64_t>(logits.size()));
  if (summary.invalid) choice.invalid = 1;
  if (choice.invalid != 0) return;
  AddStatistics(logits, summary, choice);
  for (std::size_t begin = 0; begin < logits.size(); begin += kNoiseChunk) {
    const std::size_t count = std::min(kNoiseChunk, logits.size() - begin);
    const std::span<const float> part = logits.subspan(begin, count);
    const std::int32_t id = first_id + static_cast<std::int32_t>(begin);
    float scores[kNoiseChunk];
    GumbelNoise(seed_, static_cast<std::uint32_t>(row_tag), step_, id, {scores, count});
    AddNoise(part.data(), temperature_, static_cast<std::int64_t>(count), scores);
    Challenge({scores, count}, part, id, choice);
  }
}

}  // namespace maskkv::kernels
