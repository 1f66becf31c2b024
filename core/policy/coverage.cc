// SPDX-License-Identifier: Apache-2.0
#include "core/policy/coverage.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "core/policy/arguments.h"
#include "core/policy/exact_sum.h"

namespace maskkv::policy {
namespace {

// One prompt pair. `index` is head * prompt_tokens + position, so that its order breaks ties.
struct Pair {
  float score;
  std::int64_t index;
};

bool ComesLater(const Pair& a, const Pair& b) {
  return a.score < b.score || (a.score == b.score && a.index > b.index);
}

absl::Status CheckArguments(std::span<const float> scores, std::int64_t keys,
                            std::int64_t prompt_tokens, double coverage, std::int64_t max_budget) {
  MASKKV_RETURN_IF_ERROR(CheckInteger("keys", keys, 1, kMaxPromptTokens));
  MASKKV_RETURN_IF_ERROR(CheckInteger("prompt_tokens", prompt_tokens, 0, keys));
  MASKKV_RETURN_IF_ERROR(
      CheckInteger("max_budget", max_budget, 0, std::numeric_limits<std::int64_t>::max()));
  if (!(coverage > 0 && coverage <= 1)) {  // NaN as well
    return absl::InvalidArgumentError(
        absl::StrFormat("coverage: expected a number over 0 and at most 1, found %g", coverage));
  }
  const auto row = static_cast<std::size_t>(keys);
  const std::size_t heads = scores.size() / row;
  if (heads == 0 || heads > static_cast<std::size_t>(kMaxUnits) || scores.size() % row != 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("scores: expected 1 to %d times %d values (keys), found %d", kMaxUnits,
                        keys, scores.size()));
  }
  for (std::size_t head = 0; head < heads; ++head) {
    const auto of_prompt = scores.subspan(head * row, static_cast<std::size_t>(prompt_tokens));
    if (const absl::Status status = CheckScores(of_prompt); !status.ok()) {
      return absl::InvalidArgumentError(absl::StrFormat("head %d: %s", head, status.message()));
    }
  }
  return absl::OkStatus();
}

// What is kept so far. Positions are appended in the order they are chosen.
struct Kept {
  std::vector<std::vector<std::int32_t>> positions;  // of each head
  ExactAccumulator mass;
  std::int64_t pairs = 0;

  void Add(const Pair& pair, std::int64_t prompt_tokens) {
    positions[static_cast<std::size_t>(pair.index / prompt_tokens)].push_back(
        static_cast<std::int32_t>(pair.index % prompt_tokens));
    mass.Add(pair.score);
    ++pairs;
  }
};

}  // namespace

absl::StatusOr<std::vector<std::vector<std::int32_t>>> SelectByCoverage(
    std::span<const float> scores, std::int64_t keys, std::int64_t prompt_tokens, double coverage,
    std::int64_t max_budget) {
  MASKKV_RETURN_IF_ERROR(CheckArguments(scores, keys, prompt_tokens, coverage, max_budget));
  const std::int64_t heads = static_cast<std::int64_t>(scores.size()) / keys;
  Kept kept;
  kept.positions.resize(static_cast<std::size_t>(heads));
  if (prompt_tokens == 0) return kept.positions;

  ExactAccumulator all;
  std::vector<Pair> pool;  // all pairs but the first of each head
  pool.reserve(static_cast<std::size_t>(heads * (prompt_tokens - 1)));
  for (std::int64_t head = 0; head < heads; ++head) {
    const float* row = scores.data() + head * keys;
    const std::int64_t first = std::max_element(row, row + prompt_tokens) - row;  // of equals too
    for (std::int64_t j = 0; j < prompt_tokens; ++j) {
      const Pair pair{row[j], head * prompt_tokens + j};
      all.Add(pair.score);
      if (j == first) {
        kept.Add(pair, prompt_tokens);
      } else {
        pool.push_back(pair);
      }
    }
  }
  const double target = coverage * all.Rounded();
  const std::int64_t most =
      max_budget == 0 ? heads * prompt_tokens : heads * std::min(max_budget, prompt_tokens);
  // A heap: no more of the pool is put in order than is kept.
  std::make_heap(pool.begin(), pool.end(), ComesLater);
  while (!pool.empty() && kept.pairs < most && kept.mass.Rounded() < target) {
    std::pop_heap(pool.begin(), pool.end(), ComesLater);
    kept.Add(pool.back(), prompt_tokens);
    pool.pop_back();
  }
  for (auto& positions : kept.positions) std::sort(positions.begin(), positions.end());
  return std::move(kept.positions);
}

}  // namespace maskkv::policy
