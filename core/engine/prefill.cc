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

}  // namespace

struct Prefiller::Pass {
  PrefillResult result;
  std::int64_t rows = 0;
  bool measures_importance = false;
  std::vector<std::int32_t> positions;       // (rows)
  AlignedBuffer<float> hidden;               // (rows, hidden)
  AlignedBuffer<float> mask_queries;         // (masks, query_width) of the current layer
  AlignedBuffer<float> mask_log_sum_exp;     // (heads, masks) of the current layer
  AlignedBuffer<float> block_log_sum_exp;    // (heads, block)
  std::vector<AlignedBuffer<float>> scores;  // a layer each: (kv_heads, rows), over all keys
  std::vector<double> cosines;               // (rows)
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
  pass.result.masks = std::count_if(rows.begin(), rows.end(),
                                    [](const Row& row) { return row.role == Role::kResponse; });
  pass.result.prompt_tokens = pass.rows - pass.result.masks;
  std::vector<std::int32_t> tokens;
  for (const Row& row : rows) {
    tokens.push_back(row.token);
    pass.positions.push_back(row.position);
  }
  pass.hidden.Resize(pass.rows * config.hidden);
  transformer_.Embed(tokens, pass.hidden.data());
  pass.mask_queries.Resize(pass.result.masks * transformer_.query_width());
  pass.mask_log_sum_exp.Resize(config.heads * pass.result.masks);
  pass.block_log_sum_exp.Resize(config.heads * transformer::kRowBlock);
  pass.scores.resize(static_cast<std::size_t>(config.layers));
  pass.cosines.resize(static_cast<std::size_t>(pass.rows));
}

absl::StatusOr<PrefillResult> Prefiller::Run(const PrefillRequest& request, KvSink& sink) {
  const model::ModelConfig& config = transformer_.config();
  MASKKV_RETURN_IF_ERROR(CheckRows(request.rows));
  MASKKV_RETURN_IF_ERROR(Validate(request.plan, config.layers, config.kv_heads));
  if (sink.memory() != MemoryKind::kHost) {
    return absl::InvalidArgumentError("sink: expected host memory");
  }
  const bool online = request.plan.selection == Selection::kMaskKv &&
                      request.plan.layer_rule == LayerRule::kOnline && request.plan.coverage == 0;
  Pass pass;
  pass.measures_importance = online;
  Start(pass, request.rows);
  const std::int64_t pairs_a_head = request.plan.MaxPairsAHead(pass.result.prompt_tokens);
  const EntryShape shape{config.layers, config.kv_heads, config.head_dim, request.kv_dtype};
  MASKKV_RETURN_IF_ERROR(sink.Begin(shape, pairs_a_head * config.kv_heads * config.layers));
  MASKKV_RETURN_IF_ERROR(online ? RunOnline(pass, request, sink) : RunOffline(pass, request, sink));
  MASKKV_RETURN_IF_ERROR(sink.Finish());
  return std::move(pass.result);
}

absl::StatusOr<std::vector<double>> Prefiller::MeasureImportance(std::span<const Row> rows) {
  MASKKV_RETURN_IF_ERROR(CheckRows(rows));
  Pass pass;
  pass.measures_importance = true;
  Start(pass, rows);
  AlignedBuffer<float> kv(pass.rows * 2 * transformer_.kv_width());
  std::vector<double> importance;
  for (std::int64_t layer = 0; layer < transformer_.config().layers; ++layer) {
    RunLayer(pass, layer, kv.data());
    importance.push_back(pass.result.layers.back().importance);
  }
  return importance;
}

void Prefiller::RunLayer(Pass& pass, std::int64_t layer, float* kv) {
  const ScopedTimer timer(pass.result.phases.forward);
  const model::ModelConfig& config = transformer_.config();
  const std::int64_t kv_width = transformer_.kv_width();
  const std::int64_t prompt = pass.result.prompt_tokens;
  const std::int64_t masks = pass.result.masks;
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
  LayerReport& report = pass.result.layers.emplace_back();
  if (pass.measures_importance) {
    const double mean = std::accumulate(pass.cosines.begin(), pass.cosines.end(), 0.0) /
                        static_cast<double>(pass.rows);
    report.importance = std::max(0.0, 1 - mean);  // rounding may pass 1 by an ulp
  }
}

void Prefiller::ScoreLayer(Pass& pass, std::int64_t layer, const float* kv) {
  const ScopedTimer timer(pass.result.phases.score);
  AlignedBuffer<float>& scores = pass.scores[static_cast<std::size_t>(layer)];
  scores.Resize(transformer_.shape().kv_heads * pass.rows);
  kernels::MaskQueryScores(transformer_.pool(), transformer_.shape(), pass.mask_queries.data(),
                           transformer_.query_width(), pass.result.masks,
                           pass.mask_log_sum_exp.data(), kv, 2 * transformer_.kv_width(), pass.rows,
                           scores.data(), transformer_.attention_workspace());
}

absl::Status Prefiller::EvictLayer(Pass& pass, const PrefillRequest& request, std::int64_t layer,
                                   const float* kv, std::int64_t layer_budget, KvSink& sink) {
  const kernels::AttentionShape& shape = transformer_.shape();
  LayerReport& report = pass.result.layers[static_cast<std::size_t>(layer)];
  std::vector<std::vector<std::int32_t>> kept;
  {
    const ScopedTimer timer(pass.result.phases.select);
    const std::span<const float> scores =
        std::as_const(pass.scores[static_cast<std::size_t>(layer)]).span();
    if (request.on_scores) request.on_scores(layer, scores);
    MASKKV_ASSIGN_OR_RETURN(KeptLayer decision,
                            KeepPairs(request.plan, layer, layer_budget, shape.kv_heads, scores,
                                      pass.result.prompt_tokens));
    report.preference = std::move(decision.preference);
    report.kept_mass = std::move(decision.kept_mass);
    report.prompt_mass = std::move(decision.prompt_mass);
    kept = std::move(decision.rows);
    pass.scores[static_cast<std::size_t>(layer)].Clear();
  }
  const ScopedTimer timer(pass.result.phases.pack);
  report.pairs.clear();
  for (const auto& rows : kept) report.pairs.push_back(static_cast<std::int64_t>(rows.size()));
  MASKKV_ASSIGN_OR_RETURN(const std::span<const HeadExtent> extents,
                          sink.AllocateLayer(layer, report.pairs));
  const std::int64_t kv_width = transformer_.kv_width();
  transformer_.pool().ParallelFor(shape.kv_heads, [&](std::int64_t head, int) {
    const std::vector<std::int32_t>& rows = kept[static_cast<std::size_t>(head)];
    const HeadExtent& extent = extents[static_cast<std::size_t>(head)];
    const float* keys = kv + head * shape.head_dim;
    kernels::GatherRows(keys, 2 * kv_width, shape.head_dim, rows, request.kv_dtype, extent.keys);
    kernels::GatherRows(keys + kv_width, 2 * kv_width, shape.head_dim, rows, request.kv_dtype,
                        extent.values);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      extent.positions[i] = pass.positions[static_cast<std::size_t>(rows[i])];
    }
  });
  return absl::OkStatus();
}

absl::Status Prefiller::RunOffline(Pass& pass, const PrefillRequest& request, KvSink& sink) {
  const std::int64_t layers = transformer_.config().layers;
  const EvictionPlan& plan = request.plan;
  std::vector<std::int64_t> budgets(static_cast<std::size_t>(layers), plan.budget);
  const bool counts = plan.selection == Selection::kMaskKv && plan.coverage == 0;
  if (counts && plan.layer_rule == LayerRule::kOffline) {
    MASKKV_ASSIGN_OR_RETURN(budgets,
                            policy::AllocateLayerBudgets(plan.importance, plan.budget, plan.beta,
                                                         pass.result.prompt_tokens));
  } else if (counts && plan.layer_rule == LayerRule::kWeights) {
    MASKKV_ASSIGN_OR_RETURN(
        budgets, policy::AllocateLayersByWeight(plan.layer_weights, plan.budget, plan.beta,
                                                pass.result.prompt_tokens));
  }
  AlignedBuffer<float> kv(pass.rows * 2 * transformer_.kv_width());
  pass.result.peak_full_kv_bytes = kv.capacity_bytes();
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    RunLayer(pass, layer, kv.data());
    ScoreLayer(pass, layer, kv.data());
    MASKKV_RETURN_IF_ERROR(EvictLayer(pass, request, layer, kv.data(),
                                      budgets[static_cast<std::size_t>(layer)], sink));
    if (request.after_layer) {
      MASKKV_RETURN_IF_ERROR(request.after_layer(layer + 1, layers));
    }
  }
  return absl::OkStatus();
}

absl::Status Prefiller::RunOnline(Pass& pass, const PrefillRequest& request, KvSink& sink) {
  const std::int64_t layers = transformer_.config().layers;
  std::vector<AlignedBuffer<float>> kv(static_cast<std::size_t>(layers));
  std::vector<double> importance;
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    AlignedBuffer<float>& layer_kv = kv[static_cast<std::size_t>(layer)];
    layer_kv.Resize(pass.rows * 2 * transformer_.kv_width());
    pass.result.peak_full_kv_bytes += layer_kv.capacity_bytes();
    RunLayer(pass, layer, layer_kv.data());
    ScoreLayer(pass, layer, layer_kv.data());
    importance.push_back(pass.result.layers.back().importance);
    if (request.after_layer) {
      MASKKV_RETURN_IF_ERROR(request.after_layer(layer + 1, layers));
    }
  }
  MASKKV_ASSIGN_OR_RETURN(
      const std::vector<std::int64_t> budgets,
      policy::AllocateLayerBudgets(importance, request.plan.budget, request.plan.beta,
                                   pass.result.prompt_tokens));
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    AlignedBuffer<float>& layer_kv = kv[static_cast<std::size_t>(layer)];
    MASKKV_RETURN_IF_ERROR(EvictLayer(pass, request, layer, layer_kv.data(),
                                      budgets[static_cast<std::size_t>(layer)], sink));
    layer_kv.Clear();
    if (request.after_layer) MASKKV_RETURN_IF_ERROR(request.after_layer(layers, layers));
  }
  return absl::OkStatus();
}

}  // namespace maskkv::engine
