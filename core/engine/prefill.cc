// SPDX-License-Identifier: Apache-2.0
#include "core/engine/prefill.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/scoped_timer.h"
#include "core/base/status_macros.h"
#include "core/engine/keep.h"
#include "core/policy/layer_budget.h"
#include "core/policy/layer_weights.h"
#include "kernels/attention/mask_scores.h"
#include "kernels/compact/gather.h"

namespace maskkv::engine {
namespace {

using kernels::AlignedBuffer;

// Whether layers can be cut only after all have run.
bool IsLate(const EvictionPlan& plan) {
  return plan.selection == Selection::kMaskKv && plan.layer_rule == LayerRule::kOnline &&
         plan.coverage == 0;
}

// What a plan gives each layer; `importance` is the prompt's own, read where the plan is late.
absl::StatusOr<std::vector<std::int64_t>> LayerBudgets(const EvictionPlan& plan,
                                                       std::span<const double> importance,
                                                       std::int64_t layers,
                                                       std::int64_t prompt_tokens) {
  if (plan.selection == Selection::kMaskKv && plan.coverage == 0) {
    switch (plan.layer_rule) {
      case LayerRule::kOffline:
        return policy::AllocateLayerBudgets(plan.importance, plan.budget, plan.beta, prompt_tokens);
      case LayerRule::kOnline:
        return policy::AllocateLayerBudgets(importance, plan.budget, plan.beta, prompt_tokens);
      case LayerRule::kWeights:
        return policy::AllocateLayersByWeight(plan.layer_weights, plan.budget, plan.beta,
                                              prompt_tokens);
      case LayerRule::kUniform:
        break;
    }
  }
  return std::vector<std::int64_t>(static_cast<std::size_t>(layers), plan.budget);
}

}  // namespace

struct Prefiller::Pass {
  std::int64_t rows = 0;
  std::int64_t prompt_tokens = 0;
  std::int64_t masks = 0;
  bool measures_importance = false;
  std::vector<double> importance;      // of the layers that have run; zeros if it is not measured
  PrefillPhases phases;                // forward and score
  std::vector<PrefillResult> results;  // a cut each
  std::vector<std::vector<std::int64_t>> budgets;  // a cut each: a layer each
  std::vector<std::int32_t> positions;             // (rows)
  AlignedBuffer<float> hidden;                     // (rows, hidden)
  AlignedBuffer<float> mask_queries;               // (masks, query_width) of the current layer
  AlignedBuffer<float> mask_log_sum_exp;           // (heads, masks) of the current layer
  AlignedBuffer<float> block_log_sum_exp;          // (heads, block)
  std::vector<AlignedBuffer<float>> scores;        // a layer each: (kv_heads, rows), over all keys
  std::vector<double> cosines;                     // (rows)
};

std::int64_t PrefillResult::pairs() const {
  std::int64_t total = 0;
  for (const LayerReport& layer : layers) {
    total = std::accumulate(layer.pairs.begin(), layer.pairs.end(), total);
  }
  return total;
}

double PrefillResult::kept_mass() const {
  double kept = 0, prompt = 0;
  for (const LayerReport& layer : layers) {
    kept = std::accumulate(layer.kept_mass.begin(), layer.kept_mass.end(), kept);
    prompt = std::accumulate(layer.prompt_mass.begin(), layer.prompt_mass.end(), prompt);
  }
  return prompt > 0 ? kept / prompt : 1;
}

absl::Status Prefiller::CheckRows(std::span<const Row> rows) const {
  const model::ModelConfig& config = transformer_.config();
  bool response = false;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Row& row = rows[i];
    if (row.token < 0 || row.token >= config.vocab_rows) {
      return absl::InvalidArgumentError(
          absl::StrFormat("rows: row %d: expected an id from 0 to %d, found %d", i,
                          config.vocab_rows - 1, row.token));
    }
    if (row.position < 0 || row.position >= transformer_.max_positions()) {
      return absl::InvalidArgumentError(
          absl::StrFormat("rows: row %d: expected a position from 0 to %d, found %d", i,
                          transformer_.max_positions() - 1, row.position));
    }
    if (response && row.role == Role::kPrompt) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "rows: row %d: expected prompt rows before response rows, found a prompt row", i));
    }
    response |= row.role == Role::kResponse;
    if (i > 0 && row.role == Role::kPrompt && rows[i - 1].position >= row.position) {
      return absl::InvalidArgumentError(
          absl::StrFormat("rows: row %d: expected prompt positions to ascend, found %d after %d", i,
                          row.position, rows[i - 1].position));
    }
  }
  if (!response) {
    return absl::InvalidArgumentError("rows: expected at least one response row, found none");
  }
  return absl::OkStatus();
}

void Prefiller::Start(Pass& pass, std::span<const Row> rows) {
  const model::ModelConfig& config = transformer_.config();
  pass.rows = static_cast<std::int64_t>(rows.size());
  pass.masks = std::count_if(rows.begin(), rows.end(),
                             [](const Row& row) { return row.role == Role::kResponse; });
  pass.prompt_tokens = pass.rows - pass.masks;
  std::vector<std::int32_t> tokens;
  for (const Row& row : rows) {
    tokens.push_back(row.token);
    pass.positions.push_back(row.position);
  }
  pass.hidden.Resize(pass.rows * config.hidden);
  transformer_.Embed(tokens, pass.hidden.data());
  pass.mask_queries.Resize(pass.masks * transformer_.query_width());
  pass.mask_log_sum_exp.Resize(config.heads * pass.masks);
  pass.block_log_sum_exp.Resize(config.heads * transformer::kRowBlock);
  pass.scores.resize(static_cast<std::size_t>(config.layers));
  pass.cosines.resize(static_cast<std::size_t>(pass.rows));
}

absl::StatusOr<PrefillResult> Prefiller::Run(const PrefillRequest& request, KvSink& sink) {
  const PrefillCut cut{request.plan, request.kv_dtype, &sink};
  MASKKV_ASSIGN_OR_RETURN(std::vector<PrefillResult> results, RunCuts(request, {&cut, 1}));
  return std::move(results.front());
}

absl::Status Prefiller::BeginCuts(Pass& pass, std::span<const PrefillCut> cuts) {
  const model::ModelConfig& config = transformer_.config();
  for (const PrefillCut& cut : cuts) {
    MASKKV_RETURN_IF_ERROR(Validate(cut.plan, config.layers, config.kv_heads));
    if (cut.sink->memory() != MemoryKind::kHost) {
      return absl::InvalidArgumentError("sink: expected host memory");
    }
  }
  for (const PrefillCut& cut : cuts) {
    const std::int64_t pairs_a_head = cut.plan.MaxPairsAHead(pass.prompt_tokens);
    const EntryShape shape{config.layers, config.kv_heads, config.head_dim, cut.kv_dtype};
    MASKKV_RETURN_IF_ERROR(cut.sink->Begin(shape, pairs_a_head * config.kv_heads * config.layers));
    PrefillResult& result = pass.results.emplace_back();
    result.prompt_tokens = pass.prompt_tokens;
    result.masks = pass.masks;
    std::vector<std::int64_t>& budgets = pass.budgets.emplace_back();
    if (IsLate(cut.plan)) continue;
    MASKKV_ASSIGN_OR_RETURN(budgets, LayerBudgets(cut.plan, {}, config.layers, pass.prompt_tokens));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<PrefillResult>> Prefiller::RunCuts(const PrefillForward& forward,
                                                              std::span<const PrefillCut> cuts) {
  const std::int64_t layers = transformer_.config().layers;
  MASKKV_RETURN_IF_ERROR(CheckRows(forward.rows));
  const bool late =
      std::ranges::any_of(cuts, [](const PrefillCut& cut) { return IsLate(cut.plan); });
  Pass pass;
  pass.measures_importance = late;
  Start(pass, forward.rows);
  MASKKV_RETURN_IF_ERROR(BeginCuts(pass, cuts));
  std::vector<AlignedBuffer<float>> kv(static_cast<std::size_t>(late ? layers : 1));
  std::int64_t kv_bytes = 0;
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    AlignedBuffer<float>& layer_kv = kv[static_cast<std::size_t>(late ? layer : 0)];
    layer_kv.Resize(pass.rows * 2 * transformer_.kv_width());
    if (late || layer == 0) kv_bytes += layer_kv.capacity_bytes();
    RunLayer(pass, layer, layer_kv.data());
    ScoreLayer(pass, layer, layer_kv.data());
    if (forward.on_scores) {
      forward.on_scores(layer, std::as_const(pass.scores[static_cast<std::size_t>(layer)]).span());
    }
    MASKKV_RETURN_IF_ERROR(CutLayer(pass, cuts, /*late=*/false, layer, layer_kv.data()));
    if (!late) pass.scores[static_cast<std::size_t>(layer)].Clear();
    if (forward.after_layer) MASKKV_RETURN_IF_ERROR(forward.after_layer(layer + 1, layers));
  }
  if (late) MASKKV_RETURN_IF_ERROR(CutLate(pass, forward, cuts, kv));
  for (std::size_t i = 0; i < cuts.size(); ++i) {
    pass.results[i].peak_full_kv_bytes = kv_bytes;
    pass.results[i].phases.forward = pass.phases.forward;
    pass.results[i].phases.score = pass.phases.score;
    MASKKV_RETURN_IF_ERROR(cuts[i].sink->Finish());
  }
  return std::move(pass.results);
}

absl::Status Prefiller::CutLate(Pass& pass, const PrefillForward& forward,
                                std::span<const PrefillCut> cuts,
                                std::span<AlignedBuffer<float>> kv) {
  const std::int64_t layers = transformer_.config().layers;
  for (std::size_t i = 0; i < cuts.size(); ++i) {
    if (!IsLate(cuts[i].plan)) continue;
    MASKKV_ASSIGN_OR_RETURN(
        pass.budgets[i], LayerBudgets(cuts[i].plan, pass.importance, layers, pass.prompt_tokens));
  }
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    AlignedBuffer<float>& layer_kv = kv[static_cast<std::size_t>(layer)];
    MASKKV_RETURN_IF_ERROR(CutLayer(pass, cuts, /*late=*/true, layer, layer_kv.data()));
    layer_kv.Clear();
    pass.scores[static_cast<std::size_t>(layer)].Clear();
    if (forward.after_layer) MASKKV_RETURN_IF_ERROR(forward.after_layer(layers, layers));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<double>> Prefiller::MeasureImportance(std::span<const Row> rows) {
  MASKKV_RETURN_IF_ERROR(CheckRows(rows));
  Pass pass;
  pass.measures_importance = true;
  Start(pass, rows);
  AlignedBuffer<float> kv(pass.rows * 2 * transformer_.kv_width());
  for (std::int64_t layer = 0; layer < transformer_.config().layers; ++layer) {
    RunLayer(pass, layer, kv.data());
  }
  return std::move(pass.importance);
}

void Prefiller::RunLayer(Pass& pass, std::int64_t layer, float* kv) {
  const ScopedTimer timer(pass.phases.forward);
  const model::ModelConfig& config = transformer_.config();
  const std::int64_t kv_width = transformer_.kv_width();
  const std::int64_t prompt = pass.prompt_tokens;
  const std::int64_t masks = pass.masks;
  transformer_.ProjectKeysValues(layer, pass.hidden.data(), pass.rows, pass.positions.data(), kv);

  // Nobody reads the last layer's prompt outputs.
  const bool masks_only = layer + 1 == config.layers && !pass.measures_importance;
  std::int64_t begin = masks_only ? prompt : 0;
  while (begin < pass.rows) {
    const bool votes = begin >= prompt;
    const std::int64_t end = std::min(begin + transformer::kRowBlock, votes ? pass.rows : prompt);
    const std::int64_t count = end - begin;
    const transformer::AttentionSource source{
        .rows = count,
        .keys = kv,
        .values = kv + kv_width,
        .ldkv = 2 * kv_width,
        .own_rows = pass.rows,
        .cached = {},
        .cached_dtype = kernels::DType::kF32,
        .log_sum_exp = votes ? pass.block_log_sum_exp.data() : nullptr};
    transformer_.Advance(layer, pass.hidden.data() + begin * config.hidden, count,
                         pass.positions.data() + begin, {&source, 1},
                         pass.measures_importance ? pass.cosines.data() + begin : nullptr);
    if (votes) {
      const std::int64_t width = transformer_.query_width();
      std::copy_n(transformer_.queries(), count * width,
                  pass.mask_queries.data() + (begin - prompt) * width);
      for (std::int64_t head = 0; head < config.heads; ++head) {
        std::copy_n(pass.block_log_sum_exp.data() + head * count, count,
                    pass.mask_log_sum_exp.data() + head * masks + begin - prompt);
      }
    }
    begin = end;
  }
  double importance = 0;
  if (pass.measures_importance) {
    const double mean = std::accumulate(pass.cosines.begin(), pass.cosines.end(), 0.0) /
                        static_cast<double>(pass.rows);
    importance = std::max(0.0, 1 - mean);  // rounding may pass 1 by an ulp
  }
  pass.importance.push_back(importance);
}

void Prefiller::ScoreLayer(Pass& pass, std::int64_t layer, const float* kv) {
  const ScopedTimer timer(pass.phases.score);
  AlignedBuffer<float>& scores = pass.scores[static_cast<std::size_t>(layer)];
  scores.Resize(transformer_.shape().kv_heads * pass.rows);
  kernels::MaskQueryScores(transformer_.pool(), transformer_.shape(), pass.mask_queries.data(),
                           transformer_.query_width(), pass.masks, pass.mask_log_sum_exp.data(), kv,
                           2 * transformer_.kv_width(), pass.rows, scores.data(),
                           transformer_.attention_workspace());
}

absl::Status Prefiller::CutLayer(Pass& pass, std::span<const PrefillCut> cuts, bool late,
                                 std::int64_t layer, const float* kv) {
  for (std::size_t i = 0; i < cuts.size(); ++i) {
    if (IsLate(cuts[i].plan) != late) continue;
    const std::int64_t budget = pass.budgets[i][static_cast<std::size_t>(layer)];
    MASKKV_RETURN_IF_ERROR(EvictLayer(pass, cuts[i], layer, budget, kv, pass.results[i]));
  }
  return absl::OkStatus();
}

absl::Status Prefiller::EvictLayer(Pass& pass, const PrefillCut& cut, std::int64_t layer,
                                   std::int64_t layer_budget, const float* kv,
                                   PrefillResult& result) {
  const kernels::AttentionShape& shape = transformer_.shape();
  LayerReport& report = result.layers.emplace_back();
  // Of this prompt, measured: a cut that another one's measurement happens to serve reports none.
  if (IsLate(cut.plan)) report.importance = pass.importance[static_cast<std::size_t>(layer)];
  std::vector<std::vector<std::int32_t>> kept;
  {
    const ScopedTimer timer(result.phases.select);
    const std::span<const float> scores =
        std::as_const(pass.scores[static_cast<std::size_t>(layer)]).span();
    MASKKV_ASSIGN_OR_RETURN(
        KeptLayer decision,
        KeepPairs(cut.plan, layer, layer_budget, shape.kv_heads, scores, pass.prompt_tokens));
    report.preference = std::move(decision.preference);
    report.kept_mass = std::move(decision.kept_mass);
    report.prompt_mass = std::move(decision.prompt_mass);
    kept = std::move(decision.rows);
  }
  const ScopedTimer timer(result.phases.pack);
  for (const auto& rows : kept) report.pairs.push_back(static_cast<std::int64_t>(rows.size()));
  MASKKV_ASSIGN_OR_RETURN(const std::span<const HeadExtent> extents,
                          cut.sink->AllocateLayer(layer, report.pairs));
  const std::int64_t kv_width = transformer_.kv_width();
  transformer_.pool().ParallelFor(shape.kv_heads, [&](std::int64_t head, int) {
    const std::vector<std::int32_t>& rows = kept[static_cast<std::size_t>(head)];
    const HeadExtent& extent = extents[static_cast<std::size_t>(head)];
    const float* keys = kv + head * shape.head_dim;
    kernels::GatherRows(keys, 2 * kv_width, shape.head_dim, rows, cut.kv_dtype, extent.keys);
    kernels::GatherRows(keys + kv_width, 2 * kv_width, shape.head_dim, rows, cut.kv_dtype,
                        extent.values);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      extent.positions[i] = pass.positions[static_cast<std::size_t>(rows[i])];
    }
  });
  return absl::OkStatus();
}

}  // namespace maskkv::engine
