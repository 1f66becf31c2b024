// SPDX-License-Identifier: Apache-2.0
#include "core/engine/keep.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/error.h"
#include "core/base/status_macros.h"
#include "core/policy/layer_decision.h"
#include "core/policy/preference.h"
#include "core/policy/selection.h"
#include "kernels/select/top_k.h"

namespace maskkv::engine {
namespace {

std::vector<std::int32_t> AllRows(std::int64_t prompt_tokens) {
  std::vector<std::int32_t> rows(static_cast<std::size_t>(prompt_tokens));
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

// The first `count` of a Fisher-Yates shuffle, ascending. The engine's output and the modulus are
// fixed by the standard and by us, so a seed means the same rows everywhere; the modulus' bias is
// below 2^-30 for any prompt.
std::vector<std::int32_t> RandomRows(std::int64_t prompt_tokens, std::int64_t count,
                                     std::mt19937_64& random) {
  std::vector<std::int32_t> rows = AllRows(prompt_tokens);
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
    std::swap(rows[i], rows[i + random() % (rows.size() - i)]);
  }
  rows.resize(static_cast<std::size_t>(count));
  std::sort(rows.begin(), rows.end());
  return rows;
}

}  // namespace

absl::StatusOr<KeptLayer> KeepPairs(const EvictionPlan& plan, std::int64_t layer,
                                    std::int64_t layer_budget, std::int64_t kv_heads,
                                    std::span<const float> scores, std::int64_t prompt_tokens) {
  if (kernels::AnyNan(scores)) {
    return MakeError(
        absl::StatusCode::kDataLoss, "NOT_FINITE",
        absl::StrFormat(
            "layer %d: expected numbers as mask-query scores, found NaN: the weights are broken",
            layer));
  }
  const auto keys = static_cast<std::int64_t>(scores.size()) / kv_heads;
  if (plan.selection == Selection::kMaskKv) {
    const auto decide = [&] {
      if (plan.coverage > 0) {
        return policy::DecideLayerByCoverage(scores, keys, prompt_tokens, plan.coverage,
                                             plan.max_budget);
      }
      std::span<const double> rates(&plan.alpha, 1);
      if (!plan.head_rates.empty()) {
        rates = std::span(plan.head_rates)
                    .subspan(static_cast<std::size_t>(layer * kv_heads),
                             static_cast<std::size_t>(kv_heads));
      }
      return policy::DecideLayer(scores, keys, prompt_tokens, std::min(layer_budget, prompt_tokens),
                                 rates);
    };
    MASKKV_ASSIGN_OR_RETURN(policy::LayerDecision decision, decide());
    return KeptLayer{std::move(decision.kept), std::move(decision.preference),
                     std::move(decision.kept_mass), std::move(decision.prompt_mass)};
  }
  KeptLayer kept;
  std::seed_seq seeds{plan.random_seed & 0xffffffffU, plan.random_seed >> 32,
                      static_cast<std::uint64_t>(layer)};
  std::mt19937_64 random(seeds);
  for (std::int64_t head = 0; head < kv_heads; ++head) {
    const std::span<const float> row =
        scores.subspan(static_cast<std::size_t>(head * keys), static_cast<std::size_t>(keys));
    MASKKV_ASSIGN_OR_RETURN(const policy::HeadVote vote,
                            policy::PromptPreference(row, prompt_tokens));
    kept.rows.push_back(
        plan.selection == Selection::kFull
            ? AllRows(prompt_tokens)
            : RandomRows(prompt_tokens, std::min(plan.budget, prompt_tokens), random));
    kept.preference.push_back(vote.preference);
    kept.prompt_mass.push_back(vote.prompt_mass);
    kept.kept_mass.push_back(policy::KeptMass(row, kept.rows.back()));
  }
  return kept;
}

}  // namespace maskkv::engine
