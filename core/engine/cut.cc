// SPDX-License-Identifier: Apache-2.0
#include "core/engine/cut.h"

#include "core/base/status_macros.h"
#include "core/policy/layer_budget.h"
#include "core/policy/layer_weights.h"
#include "core/policy/pyramid.h"
#include "core/policy/squeeze.h"
#include "kernels/compact/gather.h"

namespace maskkv::engine {

LayerReport ReportOf(const KeptLayer& kept) {
  LayerReport report;
  for (const auto& rows : kept.rows) report.pairs.push_back(std::ssize(rows));
  report.preference = kept.preference;
  report.kept_mass = kept.kept_mass;
  report.prompt_mass = kept.prompt_mass;
  return report;
}

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
      case LayerRule::kPyramid:
        return policy::PyramidLayerBudgets(layers, plan.budget, prompt_tokens);
      case LayerRule::kSqueeze:
        return policy::SqueezeLayerBudgets(plan.importance, plan.budget, prompt_tokens);
      case LayerRule::kUniform:
      case LayerRule::kPool:
        break;
    }
  }
  return std::vector<std::int64_t>(static_cast<std::size_t>(layers), plan.budget);
}

absl::Status WriteKept(kernels::WorkerPool& workers, const EntryShape& shape, std::int64_t layer,
                       const KeptLayer& kept, const float* kv,
                       std::span<const std::int32_t> positions, KvSink& sink) {
  std::vector<std::int64_t> pairs;
  for (const auto& rows : kept.rows) pairs.push_back(std::ssize(rows));
  MASKKV_ASSIGN_OR_RETURN(const std::span<const HeadExtent> extents,
                          sink.AllocateLayer(layer, pairs));
  const std::int64_t kv_width = shape.kv_heads * shape.head_dim;
  workers.ParallelFor(shape.kv_heads, [&](std::int64_t head, int) {
    const std::vector<std::int32_t>& rows = kept.rows[static_cast<std::size_t>(head)];
    const HeadExtent& extent = extents[static_cast<std::size_t>(head)];
    const float* keys = kv + head * shape.head_dim;
    kernels::GatherRows(keys, 2 * kv_width, shape.head_dim, rows, shape.dtype, extent.keys,
                        extent.key_scales);
    kernels::GatherRows(keys + kv_width, 2 * kv_width, shape.head_dim, rows, shape.dtype,
                        extent.values, extent.value_scales);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      extent.positions[i] = positions[static_cast<std::size_t>(rows[i])];
    }
  });
  return absl::OkStatus();
}

}  // namespace maskkv::engine
